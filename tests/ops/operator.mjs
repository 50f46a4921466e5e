// Checks objects of the Prometheus operator against its definitions: JSON on standard
// input, a list; what is wrong on standard output, a line each.
//
//     node operator.mjs DIRECTORY-OF-NODE_MODULES
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const path = `${process.argv[2]}/node_modules/@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/index.js`;
const models = await import(pathToFileURL(path).href);

for (const object of JSON.parse(readFileSync(0, "utf8"))) {
    const Model = models[object.kind];
    if (Model === undefined) {
        console.log(`${object.kind} is no kind of the operator's`);
        continue;
    }
    try {
        new Model(object).validate();
    } catch (error) {
        console.log(`${object.kind} ${object.metadata.name}: ${error.message}`);
    }
}

// The dashboards as Grafana's own types have them, with the panels and the data source that are used
// here. grafana.py makes schemas of what is exported.
import { AnnotationQuery, Dashboard, DataQuery, FieldConfigSource, Panel, RowPanel } from "@grafana/schema";
import * as Stat from "@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen";
import * as TimeSeries from "@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen";

// What the package has no types of.
interface PrometheusQuery extends DataQuery {
    expr: string;
    editorMode?: "code" | "builder";
    format?: "time_series" | "table" | "heatmap";
    instant?: boolean;
    interval?: string;
    legendFormat?: string;
    range?: boolean;
}
interface PrometheusAnnotation extends AnnotationQuery {
    expr: string;
    step?: string;
    tagKeys?: string;
    textFormat?: string;
    titleFormat?: string;
}

type PanelOf<Type extends string, Options, Custom> = Omit<Panel, "type" | "options" | "fieldConfig" | "targets"> & {
    type: Type;
    options: Options;
    targets: PrometheusQuery[];
    fieldConfig: Omit<FieldConfigSource, "defaults"> & {
        defaults: Omit<FieldConfigSource["defaults"], "custom"> & { custom?: Custom };
    };
};

export type timeseries = PanelOf<"timeseries", TimeSeries.Options, TimeSeries.FieldConfig>;
export type stat = PanelOf<"stat", Partial<Stat.Options>, {}>;
export type row = RowPanel;
export type dashboard = Omit<Dashboard, "panels" | "annotations"> & {
    panels: object[];
    annotations: { list: PrometheusAnnotation[] };
};

{{- /*
The pod of a service. Takes a list: the root, and the service's name.
*/ -}}
{{- define "tracer.pod" -}}
{{- $ := index . 0 }}
{{- $component := index . 1 }}
{{- $values := index $.Values $component }}
metadata:
  labels:
    {{- include "tracer.labels" $ | nindent 4 }}
    app.kubernetes.io/component: {{ $component }}
    {{- with merge (dict) $values.podLabels $.Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    # A change of the configuration rolls the pods.
    checksum/config: {{ $.Values.config | sha256sum }}
    {{- with merge (dict) $values.podAnnotations $.Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "tracer.serviceAccount" $ }}
  automountServiceAccountToken: false
  # Nothing here finds others by the variables of service links.
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ $values.terminationGracePeriodSeconds }}
  {{- with $.Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 10001
    runAsGroup: 10001
    # So that mounted secrets can be read.
    fsGroup: 10001
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile:
      type: RuntimeDefault
  containers:
    - name: {{ $component }}
      image: "{{ $.Values.image.repository }}:{{ $.Values.image.tag | default $.Chart.AppVersion }}"
      imagePullPolicy: {{ $.Values.image.pullPolicy }}
      args: ["--config", "/etc/tracer/tracer.toml", {{ $component | quote }}]
      env:
        {{- include "tracer.env" . | nindent 8 }}
      {{- with $.Values.extraEnvFrom }}
      envFrom:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      ports:
        - name: http
          containerPort: 8080
        {{- if eq $component "inference" }}
        - name: grpc
          containerPort: 50051
        {{- end }}
      # Longer than any start: a first look at the store, and a model that is read.
      startupProbe:
        httpGet: { path: /livez, port: http }
        periodSeconds: 2
        failureThreshold: {{ $.Values.startupProbe.failureThreshold }}
      livenessProbe:
        httpGet: { path: /livez, port: http }
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      readinessProbe:
        httpGet: { path: /readyz, port: http }
        periodSeconds: 5
        timeoutSeconds: 5
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        runAsNonRoot: true
        capabilities:
          drop: ["ALL"]
      {{- with $values.resources }}
      resources:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      volumeMounts:
        - name: config
          mountPath: /etc/tracer
          readOnly: true
        - name: tmp
          mountPath: /tmp
        {{- if $.Values.kafka.sasl.existingSecret }}
        - name: kafka-sasl
          mountPath: /run/secrets/kafka-sasl
          readOnly: true
        {{- end }}
        {{- if $.Values.kafka.tls.existingSecret }}
        - name: kafka-tls
          mountPath: /run/secrets/kafka-tls
          readOnly: true
        {{- end }}
        {{- if eq $component "inference" }}
        {{- if $.Values.security.tls.existingSecret }}
        - name: router-tls
          mountPath: /run/secrets/router-tls
          readOnly: true
        {{- end }}
        {{- if $.Values.security.tokens.existingSecret }}
        - name: router-tokens
          mountPath: /run/secrets/router-tokens
          readOnly: true
        {{- end }}
        {{- end }}
        {{- with concat $.Values.extraVolumeMounts $values.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    - name: config
      configMap:
        name: {{ include "tracer.name" $ }}
    - name: tmp
      emptyDir: {}
    {{- with $.Values.kafka.sasl }}
    {{- if .existingSecret }}
    - name: kafka-sasl
      secret:
        secretName: {{ .existingSecret }}
        defaultMode: 0440
        items:
          - { key: {{ .passwordKey | quote }}, path: password }
    {{- end }}
    {{- end }}
    {{- with $.Values.kafka.tls }}
    {{- if .existingSecret }}
    - name: kafka-tls
      secret:
        secretName: {{ .existingSecret }}
        defaultMode: 0440
    {{- end }}
    {{- end }}
    {{- if eq $component "inference" }}
    {{- with $.Values.security.tls.existingSecret }}
    - name: router-tls
      secret:
        secretName: {{ . }}
        defaultMode: 0440
    {{- end }}
    {{- with $.Values.security.tokens.existingSecret }}
    - name: router-tokens
      secret:
        secretName: {{ . }}
        defaultMode: 0440
    {{- end }}
    {{- end }}
    {{- with concat $.Values.extraVolumes $values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with $values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if $values.topologySpreadConstraints }}
  topologySpreadConstraints:
    {{- toYaml $values.topologySpreadConstraints | nindent 4 }}
  {{- else if $.Values.topologySpread }}
  topologySpreadConstraints:
    {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
    - maxSkew: 1
      topologyKey: {{ . }}
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "tracer.selector" $ | nindent 10 }}
          app.kubernetes.io/component: {{ $component }}
    {{- end }}
  {{- end }}
{{- end }}

{{- /*
The environment of a service: what the chart knows, then what the values add.
*/ -}}
{{- define "tracer.env" -}}
{{- $ := index . 0 }}
{{- $component := index . 1 }}
- name: TRACER__LISTEN__GRPC
  value: "0.0.0.0:50051"
- name: TRACER__LISTEN__HTTP
  value: "0.0.0.0:8080"
{{- if eq $component "trainer" }}
- name: MALLOC_ARENA_MAX
  value: "2"
{{- end }}
{{- if and (eq $component "aggregator") $.Values.aggregator.staticMembership }}
- name: TRACER__SOURCE__INSTANCE_ID
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
{{- end }}
{{- with $.Values.kafka.sasl }}
{{- if .existingSecret }}
- name: TRACER__SOURCE__SASL__MECHANISM
  value: {{ .mechanism }}
- name: TRACER__SOURCE__SASL__USERNAME
  valueFrom:
    secretKeyRef: { name: {{ .existingSecret }}, key: {{ .usernameKey | quote }} }
- name: TRACER__SOURCE__SASL__PASSWORD_FILE
  value: /run/secrets/kafka-sasl/password
{{- end }}
{{- end }}
{{- with $.Values.kafka.tls }}
{{- if .existingSecret }}
{{- with .caKey }}
- name: TRACER__SOURCE__TLS__CA
  value: /run/secrets/kafka-tls/{{ . }}
{{- end }}
{{- if .certificateKey }}
- name: TRACER__SOURCE__TLS__CERTIFICATE
  value: /run/secrets/kafka-tls/{{ .certificateKey }}
- name: TRACER__SOURCE__TLS__KEY
  value: /run/secrets/kafka-tls/{{ required "kafka.tls.keyKey goes with certificateKey" .keyKey }}
{{- end }}
{{- end }}
{{- end }}
{{- if eq $component "inference" }}
{{- with $.Values.security.tls }}
{{- if .existingSecret }}
- name: TRACER__SECURITY__TLS_CERT
  value: /run/secrets/router-tls/tls.crt
- name: TRACER__SECURITY__TLS_KEY
  value: /run/secrets/router-tls/tls.key
{{- with .clientCaKey }}
- name: TRACER__SECURITY__CLIENT_CA
  value: /run/secrets/router-tls/{{ . }}
{{- end }}
{{- end }}
{{- end }}
{{- with $.Values.security.tokens }}
{{- if .existingSecret }}
- name: TRACER__SECURITY__TOKENS
  value: /run/secrets/router-tokens/{{ .key }}
{{- end }}
{{- end }}
{{- end }}
{{- with $.Values.store }}
{{- if .existingSecret }}
- name: AWS_ACCESS_KEY_ID
  valueFrom:
    secretKeyRef: { name: {{ .existingSecret }}, key: {{ .accessKeyIdKey | quote }} }
- name: AWS_SECRET_ACCESS_KEY
  valueFrom:
    secretKeyRef: { name: {{ .existingSecret }}, key: {{ .secretAccessKeyKey | quote }} }
{{- end }}
{{- end }}
{{- with $.Values.inputSecret }}
{{- if .existingSecret }}
- name: TRACER_INPUT_SECRET
  valueFrom:
    secretKeyRef: { name: {{ .existingSecret }}, key: {{ .key | quote }} }
{{- end }}
{{- end }}
{{- with concat $.Values.extraEnv (index $.Values $component).extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* What Prometheus is told. */}}

{{/* How an endpoint is scraped. Takes the values of a monitor. */}}
{{- define "moleport.endpoint" -}}
- port: metrics
  {{- with .interval }}
  interval: {{ . }}
  {{- end }}
  {{- with .scrapeTimeout }}
  scrapeTimeout: {{ . }}
  {{- end }}
  honorLabels: {{ .honorLabels }}
  {{- with .relabelings }}
  relabelings:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .metricRelabelings }}
  metricRelabelings:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{- define "moleport.components" -}}
{{- $components := list }}
{{- if .Values.server.enabled }}{{ $components = append $components "server" }}{{ end }}
{{- if .Values.operator.enabled }}{{ $components = append $components "operator" }}{{ end }}
{{- toYaml $components }}
{{- end }}

{{/* An expression with our selectors in the place of $server, $operator, $tokens and $tokenNamespace.
     Takes root and expr. */}}
{{- define "moleport.expression" -}}
{{- $fullname := include "moleport.fullname" .root }}
{{- $namespace := printf "namespace=%q" (include "moleport.namespace" .root) }}
{{- $honours := or .root.Values.metrics.serviceMonitor.honorLabels .root.Values.metrics.podMonitor.honorLabels }}
{{- $operator := printf "pod=~\"%s-operator-.+\"" $fullname }}
{{- .expr
      | replace "$server" (printf "%s,pod=~\"%s-server-[0-9]+\"" $namespace $fullname)
      | replace "$operator" (printf "%s,%s" $namespace $operator)
      | replace "$tokens" (ternary $operator (printf "%s,%s" $namespace $operator) $honours)
      | replace "$tokenNamespace" (ternary "namespace" "exported_namespace" $honours) }}
{{- end }}

{{/* What the server is told: its settings as TOML, derived from values. */}}

{{- define "moleport.firstPort" -}}{{ (splitList "-" .Values.server.tcpPorts | first) | int }}{{- end }}
{{- define "moleport.lastPort" -}}{{ (splitList "-" .Values.server.tcpPorts | last) | int }}{{- end }}

{{/* Whether the server ends TLS for visitors: "true" or nothing. */}}
{{- define "moleport.servesHttps" -}}
{{- if and (ne .Values.tls.mode "none") .Values.service.edge.httpsPort }}true{{ end }}
{{- end }}

{{/* Whether something in front ends TLS for visitors. */}}
{{- define "moleport.hasFront" -}}
{{- if or .Values.ingress.enabled .Values.gateway.enabled }}true{{ end }}
{{- end }}

{{- define "moleport.controlHost" -}}control.{{ .Values.domain }}{{- end }}

{{/* Port that visitors use for http or https. Takes root and scheme. */}}
{{- define "moleport.publicPort" -}}
{{- $edge := .root.Values.service.edge }}
{{- $given := index .root.Values.server.public (printf "%sPort" .scheme) }}
{{- $usual := ternary 443 80 (eq .scheme "https") }}
{{- if $given }}
{{- int $given }}
{{- else if include "moleport.hasFront" .root }}
{{- $usual }}
{{- else if and (eq $edge.type "NodePort") (index $edge.nodePorts .scheme) }}
{{- int (index $edge.nodePorts .scheme) }}
{{- else }}
{{- int (default $usual (index $edge (printf "%sPort" .scheme))) }}
{{- end }}
{{- end }}

{{/* Settings that the chart derives, as YAML. */}}
{{- define "moleport.settings" -}}
{{- $values := .Values }}
{{- $public := $values.server.public }}
server:
  data_dir: /var/lib/moleport
  domains: {{ concat (list $values.domain) $values.extraDomains | toJson }}
  control_host: {{ include "moleport.controlHost" . }}
  drain_delay_seconds: {{ $values.server.drain.delaySeconds }}
  drain_seconds: {{ $values.server.drain.seconds }}
listen:
  edge_http: {{ ternary "0.0.0.0:8080" "off" (not (not $values.service.edge.httpPort)) | quote }}
  edge_https: {{ ternary "0.0.0.0:8443" "off" (eq (include "moleport.servesHttps" .) "true") | quote }}
  control: "0.0.0.0:4040"
  control_tls: {{ ne $values.tls.mode "none" }}
  api: "0.0.0.0:4041"
  api_tls: true
  metrics: "0.0.0.0:9090"
  tcp_ports: {{ $values.server.tcpPorts | quote }}
public:
  http_port: {{ include "moleport.publicPort" (dict "root" . "scheme" "http") }}
  https_port: {{ include "moleport.publicPort" (dict "root" . "scheme" "https") }}
  {{- with default (ternary "https" "" (eq (include "moleport.hasFront" .) "true")) $public.scheme }}
  scheme: {{ . }}
  {{- end }}
  {{- with $public.tcpHost }}
  tcp_host: {{ . }}
  {{- end }}
  {{- with $public.controlURL }}
  control_url: {{ . | quote }}
  {{- end }}
auth:
  admin_token_file: /etc/moleport/admin/token
tls:
  {{- if ne $values.tls.mode "none" }}
  certificate_file: /etc/moleport/tls/tls.crt
  key_file: /etc/moleport/tls/tls.key
  {{- if ne (include "moleport.publicSecret" .) (include "moleport.internalSecret" .) }}
  certificates:
    - certificate_file: /etc/moleport/internal-tls/tls.crt
      key_file: /etc/moleport/internal-tls/tls.key
  {{- end }}
  {{- else }}
  control_certificate_file: /etc/moleport/internal-tls/tls.crt
  control_key_file: /etc/moleport/internal-tls/tls.key
  {{- end }}
log:
  level: {{ $values.server.log.level }}
  format: {{ $values.server.log.format }}
  access: {{ $values.server.log.access | quote }}
{{- end }}

{{/* One value as TOML. Numbers of values are floats in helm, whole ones have to look whole. */}}
{{- define "moleport.toml" -}}
{{- if kindIs "slice" . -}}
[{{ range $index, $each := . }}{{ if $index }}, {{ end }}{{ include "moleport.toml" $each }}{{ end }}]
{{- else if kindIs "map" . -}}
{ {{- range $index, $key := keys . | sortAlpha }}{{ if $index }},{{ end }} {{ $key }} = {{ include "moleport.toml" (get $ $key) }}{{ end }} }
{{- else if kindIs "float64" . -}}
{{ if eq . (floor .) }}{{ int64 . }}{{ else }}{{ . }}{{ end }}
{{- else if kindIs "string" . -}}
{{ toJson . }}
{{- else -}}
{{ . }}
{{- end -}}
{{- end }}

{{/* The whole file. */}}
{{- define "moleport.config" -}}
{{- $settings := mergeOverwrite (include "moleport.settings" . | fromYaml) (deepCopy .Values.server.settings) }}
{{- range $section := keys $settings | sortAlpha }}
[{{ $section }}]
{{- $entries := get $settings $section }}
{{- range $key := keys $entries | sortAlpha }}
{{- $value := get $entries $key }}
{{- if not (kindIs "invalid" $value) }}
{{ $key }} = {{ include "moleport.toml" $value }}
{{- end }}
{{- end }}
{{ end }}
{{- end }}

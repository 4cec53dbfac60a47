{{/* Secrets: which ones there are, and what is in those that the chart makes. */}}

{{- define "moleport.adminSecret" -}}
{{- if .Values.server.enabled }}
{{- default (printf "%s-admin" (include "moleport.fullname" .)) .Values.admin.existingSecret }}
{{- else }}
{{- .Values.operator.server.adminSecret }}
{{- end }}
{{- end }}

{{/* The certificate that visitors see. */}}
{{- define "moleport.publicSecret" -}}
{{- if eq .Values.tls.mode "existingSecret" }}
{{- .Values.tls.existingSecret }}
{{- else if ne .Values.tls.mode "none" }}
{{- printf "%s-tls" (include "moleport.fullname" .) }}
{{- end }}
{{- end }}

{{/* The certificate for the names of Services. A self-signed one serves both. */}}
{{- define "moleport.internalSecret" -}}
{{- if .Values.tls.internal.existingSecret }}
{{- .Values.tls.internal.existingSecret }}
{{- else if eq .Values.tls.mode "selfSigned" }}
{{- include "moleport.publicSecret" . }}
{{- else }}
{{- printf "%s-internal-tls" (include "moleport.fullname" .) }}
{{- end }}
{{- end }}

{{/* Names of our Services, for certificates; YAML list. */}}
{{- define "moleport.serviceNames" -}}
{{- $namespace := include "moleport.namespace" . }}
{{- $fullname := include "moleport.fullname" . }}
{{- range $suffix := list "" "-control" "-api" }}
- {{ $fullname }}{{ $suffix }}.{{ $namespace }}.svc
- {{ $fullname }}{{ $suffix }}.{{ $namespace }}
- {{ $fullname }}{{ $suffix }}
{{- end }}
- localhost
{{- end }}

{{/* Names of visitors; YAML list. */}}
{{- define "moleport.publicNames" -}}
{{- range concat (list .Values.domain) .Values.extraDomains }}
- {{ . | quote }}
- {{ printf "*.%s" . | quote }}
{{- end }}
{{- end }}

{{/* What is in the Secret of that name now, as JSON of its decoded data; {} when it is not there or helm may not ask. */}}
{{- define "moleport.kept" -}}
{{- $found := lookup "v1" "Secret" (include "moleport.namespace" .root) .name }}
{{- $data := dict }}
{{- if $found }}
{{- range $key, $value := $found.data }}
{{- $_ := set $data $key (b64dec $value) }}
{{- end }}
{{- $_ := set $data "annotations" (default (dict) $found.metadata.annotations) }}
{{- end }}
{{- toJson $data }}
{{- end }}

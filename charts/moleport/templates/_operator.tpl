{{/* What the operator is told, and what it may do. */}}

{{- define "moleport.isNamespaced" -}}
{{- if eq .Values.rbac.scope "namespaced" }}true{{ end }}
{{- end }}

{{/* Watched namespaces of namespaced mode; YAML list. */}}
{{- define "moleport.watchNamespaces" -}}
{{- if include "moleport.isNamespaced" . }}
{{- default (list (include "moleport.namespace" .)) .Values.rbac.watchNamespaces | uniq | toYaml }}
{{- else -}}
[]
{{- end }}
{{- end }}

{{- define "moleport.operatorServerURL" -}}
{{- if .Values.server.enabled -}}
https://{{ include "moleport.fullname" . }}-api.{{ include "moleport.namespace" . }}.svc:{{ int .Values.service.api.port }}
{{- else -}}
{{ .Values.operator.server.url }}
{{- end }}
{{- end }}

{{/* Whether agents are sent to the control Service: nothing outside the cluster could find the domain. */}}
{{- define "moleport.agentsStayInside" -}}
{{- if and .Values.server.enabled (not .Values.operator.agentURL) (not .Values.server.public.controlURL) .Values.service.control.enabled
      (or (eq .Values.domain "localhost") (hasSuffix ".localhost" .Values.domain)) }}true{{ end }}
{{- end }}

{{- define "moleport.agentURL" -}}
{{- if .Values.operator.agentURL }}
{{- tpl .Values.operator.agentURL . }}
{{- else if .Values.server.public.controlURL }}
{{- .Values.server.public.controlURL }}
{{- else if include "moleport.agentsStayInside" . }}
{{- printf "%s://%s-control.%s.svc:%d" (ternary "http" "https" (eq .Values.tls.mode "none"))
      (include "moleport.fullname" .) (include "moleport.namespace" .) (int .Values.service.control.port) }}
{{- end }}
{{- end }}

{{/* Secret and key of the authority that goes into Secrets of tokens; YAML, {} when agents use their system's. */}}
{{- define "moleport.agentAuthority" -}}
{{- if .Values.operator.agentCA.secret }}
{{- dict "secret" .Values.operator.agentCA.secret "key" .Values.operator.agentCA.key | toYaml }}
{{- else if and .Values.server.enabled (eq .Values.tls.mode "selfSigned") }}
{{- dict "secret" (include "moleport.publicSecret" .) "key" "ca.crt" | toYaml }}
{{- else if and (include "moleport.agentsStayInside" .) (ne .Values.tls.mode "none") }}
{{- dict "secret" (include "moleport.internalSecret" .) "key" "ca.crt" | toYaml }}
{{- else -}}
{}
{{- end }}
{{- end }}

{{/* Secret with the authority of the server's API; nothing: the roots of the system. */}}
{{- define "moleport.serverAuthority" -}}
{{- if .Values.server.enabled }}
{{- include "moleport.internalSecret" . }}
{{- else }}
{{- .Values.operator.server.caSecret }}
{{- end }}
{{- end }}

{{- define "moleport.ownerID" -}}
{{- if .Values.operator.ownerID }}
{{- .Values.operator.ownerID }}
{{- else if include "moleport.isNamespaced" . }}
{{- printf "%s/%s" (include "moleport.namespace" .) (include "moleport.fullname" .) }}
{{- end }}
{{- end }}

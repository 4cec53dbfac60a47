{{/* What the pods of all components share: security, placement, room for more. */}}

{{- define "moleport.podSecurityContext" -}}
{{- $restricted := dict
      "runAsNonRoot" true "runAsUser" 65532 "runAsGroup" 65532 "fsGroup" 65532
      "fsGroupChangePolicy" "OnRootMismatch" "seccompProfile" (dict "type" "RuntimeDefault") }}
{{- toYaml (mergeOverwrite $restricted (default (dict) .podSecurityContext)) }}
{{- end }}

{{- define "moleport.securityContext" -}}
{{- $restricted := dict
      "allowPrivilegeEscalation" false "readOnlyRootFilesystem" true "privileged" false
      "capabilities" (dict "drop" (list "ALL")) }}
{{- toYaml (mergeOverwrite $restricted (default (dict) .securityContext)) }}
{{- end }}

{{- define "moleport.pullSecrets" -}}
{{- with concat .Values.global.imagePullSecrets .Values.imagePullSecrets | uniq }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{/* Fields of a pod's spec that values of a component set. Takes root, component and values. */}}
{{- define "moleport.podPlacement" -}}
{{- $values := .values }}
{{- $selector := include "moleport.selector" . | fromYaml }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $values.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity }}
affinity:
  {{- tpl (toYaml .) $.root | nindent 2 }}
{{- end }}
{{- with $values.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- range . }}
  - {{ toYaml (merge (dict) . (dict "labelSelector" (dict "matchLabels" $selector))) | nindent 4 | trim }}
  {{- end }}
{{- end }}
{{- with $values.hostAliases }}
hostAliases:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.dnsPolicy }}
dnsPolicy: {{ . }}
{{- end }}
{{- with $values.dnsConfig }}
dnsConfig:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* One probe. Takes probe (what the chart says) and values (what replaces it). */}}
{{- define "moleport.probe" -}}
{{- $probe := .probe }}
{{- $handlers := list "httpGet" "tcpSocket" "exec" "grpc" }}
{{- range $handlers }}
{{- if hasKey $.values . }}{{ $probe = omit $probe "httpGet" }}{{ end }}
{{- end }}
{{- toYaml (mergeOverwrite (deepCopy $probe) .values) }}
{{- end }}

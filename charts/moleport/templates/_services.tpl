{{/* Fields of a Service that its values set, whatever it is for. Takes the values of one Service. */}}
{{- define "moleport.serviceSpec" -}}
type: {{ .type }}
{{- if has .type (list "NodePort" "LoadBalancer") }}
externalTrafficPolicy: {{ .externalTrafficPolicy }}
{{- end }}
{{- if eq .type "LoadBalancer" }}
{{- with .loadBalancerClass }}
loadBalancerClass: {{ . }}
{{- end }}
{{- with .loadBalancerIP }}
loadBalancerIP: {{ . }}
{{- end }}
{{- with .loadBalancerSourceRanges }}
loadBalancerSourceRanges:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if not (kindIs "invalid" .allocateLoadBalancerNodePorts) }}
allocateLoadBalancerNodePorts: {{ .allocateLoadBalancerNodePorts }}
{{- end }}
{{- end }}
{{- with .ipFamilyPolicy }}
ipFamilyPolicy: {{ . }}
{{- end }}
{{- with .ipFamilies }}
ipFamilies:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .externalIPs }}
externalIPs:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* One port. Takes name, port, target, protocol; service (values) and nodePort. */}}
{{- define "moleport.servicePort" -}}
- name: {{ .name }}
  port: {{ int .port }}
  targetPort: {{ .target }}
  {{- with .protocol }}
  appProtocol: {{ . }}
  {{- end }}
  {{- if and .nodePort (ne .service.type "ClusterIP") }}
  nodePort: {{ int .nodePort }}
  {{- end }}
{{- end }}

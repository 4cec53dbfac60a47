{{/* What the schema cannot say: values that contradict each other. Every problem is named in one message. */}}
{{- define "moleport.checks" -}}
{{- $problems := list }}
{{- $values := .Values }}
{{- $first := include "moleport.firstPort" . | int }}
{{- $last := include "moleport.lastPort" . | int }}
{{- if $values.server.enabled }}
{{- if gt $first $last }}
{{- $problems = append $problems (printf "server.tcpPorts: %d is above %d" $first $last) }}
{{- end }}
{{- if and $values.service.tcp.enabled (gt (sub $last $first) 999) }}
{{- $problems = append $problems (printf "server.tcpPorts: %s is more than 1000 ports, more than a Service should carry" $values.server.tcpPorts) }}
{{- end }}
{{- if and $values.service.tcp.enabled (eq $values.service.tcp.type "NodePort") (or (lt $first 30000) (gt $last 32767)) }}
{{- $problems = append $problems (printf "server.tcpPorts: %s has to lie inside 30000-32767 with service.tcp.type NodePort, because each port is its own node port; for example server.tcpPorts=30100-30119" $values.server.tcpPorts) }}
{{- end }}
{{- range $port := list 4040 4041 8080 8443 9090 }}
{{- if and (le $first $port) (ge $last $port) }}
{{- $problems = append $problems (printf "server.tcpPorts: %s contains %d, which the server itself listens on" $values.server.tcpPorts $port) }}
{{- end }}
{{- end }}
{{- if and (eq $values.tls.mode "existingSecret") (not $values.tls.existingSecret) }}
{{- $problems = append $problems "tls.existingSecret: missing, tls.mode existingSecret needs its name" }}
{{- end }}
{{- if and (ne $values.tls.mode "existingSecret") $values.tls.existingSecret }}
{{- $problems = append $problems (printf "tls.existingSecret: is ignored with tls.mode %s; set tls.mode to existingSecret" $values.tls.mode) }}
{{- end }}
{{- if and (eq $values.tls.mode "certManager") (not $values.tls.certManager.issuerRef.name) }}
{{- $problems = append $problems "tls.certManager.issuerRef.name: missing, tls.mode certManager needs an issuer" }}
{{- end }}
{{- if and (eq $values.tls.mode "none") (not (include "moleport.hasFront" .)) (ne $values.server.public.scheme "https") (ne $values.server.public.scheme "http") }}
{{- $problems = append $problems "tls.mode: none needs something in front that ends TLS: enable ingress or gateway, or set server.public.scheme to say how visitors come" }}
{{- end }}
{{- if and $values.ingress.enabled $values.gateway.enabled }}
{{- $problems = append $problems "ingress.enabled and gateway.enabled: choose one" }}
{{- end }}
{{- if and $values.gateway.enabled (not $values.gateway.parentRefs) }}
{{- $problems = append $problems "gateway.parentRefs: missing, the HTTPRoute needs a Gateway" }}
{{- end }}
{{- if and (include "moleport.hasFront" .) (not $values.service.edge.httpPort) }}
{{- $problems = append $problems "service.edge.httpPort: needed by the Ingress or HTTPRoute" }}
{{- end }}
{{- else }}
{{- if and $values.operator.enabled (not $values.operator.server.url) }}
{{- $problems = append $problems "operator.server.url: missing, because server.enabled is false" }}
{{- end }}
{{- if and $values.operator.enabled (not $values.operator.server.adminSecret) }}
{{- $problems = append $problems "operator.server.adminSecret: missing, because server.enabled is false" }}
{{- end }}
{{- end }}
{{- if and $values.rbac.watchNamespaces (ne $values.rbac.scope "namespaced") }}
{{- $problems = append $problems "rbac.watchNamespaces: is ignored with rbac.scope cluster; set rbac.scope to namespaced" }}
{{- end }}
{{- if and $values.crds.enabled (not $values.crds.keep) (ne $values.uninstall.objects "Delete") }}
{{- $problems = append $problems "crds.keep: false deletes every TunnelToken with its definition; set uninstall.objects to Delete as well, so that nothing stays at the server" }}
{{- end }}
{{- if and $values.metrics.serviceMonitor.enabled $values.metrics.podMonitor.enabled }}
{{- $problems = append $problems "metrics.serviceMonitor.enabled and metrics.podMonitor.enabled: choose one, or everything is scraped twice" }}
{{- end }}
{{- if $problems }}
{{- fail (printf "\n\nmoleport: %d problem(s) with the values:\n  - %s\n" (len $problems) (join "\n  - " $problems)) }}
{{- end }}
{{- end }}

{{/* Rights, each list once. tests/e2e/operator/test_rights.py holds them to what the operator was seen to use. */}}

{{/* What the operator may do in a namespace that it watches. */}}
{{- define "moleport.namespacedRights" -}}
- apiGroups: [moleport.dev]
  resources: [tunneltokens, tunnelpolicies]
  verbs: [get, list, watch, patch]
- apiGroups: [moleport.dev]
  resources: [tunneltokens/status, tunnelpolicies/status]
  verbs: [patch]
# For owner references where the cluster checks who may set them.
- apiGroups: [moleport.dev]
  resources: [tunneltokens/finalizers]
  verbs: [update]
# Never list or watch: it reads only Secrets that a resource names.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, create, patch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}

{{/* And what a whole cluster adds. */}}
{{- define "moleport.clusterRights" -}}
- apiGroups: [moleport.dev]
  resources: [clustertunnelpolicies]
  verbs: [get, list, watch, patch]
- apiGroups: [moleport.dev]
  resources: [clustertunnelpolicies/status]
  verbs: [patch]
# Labels, for ClusterTunnelPolicies that select namespaces; the uid of kube-system marks what is ours.
- apiGroups: [""]
  resources: [namespaces]
  verbs: [get, list, watch]
{{- end }}

{{/* In its own namespace, when several operators share a Lease. */}}
{{- define "moleport.leaseRights" -}}
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [get, create, update]
{{- end }}

{{/* For the job of an uninstall. */}}
{{- define "moleport.uninstallRights" -}}
- apiGroups: [moleport.dev]
  resources: {{ ternary (list "tunneltokens" "tunnelpolicies") (list "tunneltokens" "tunnelpolicies" "clustertunnelpolicies") .isNamespaced | toJson }}
  verbs: {{ ternary (list "list" "delete" "patch") (list "list" "patch") .deletes | toJson }}
{{- end }}

{{/* Bind a role to a service account. Takes root, kind (of the role), role and account. */}}
{{- define "moleport.binding" -}}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ .kind }}
  name: {{ .role }}
subjects:
  - kind: ServiceAccount
    name: {{ .account }}
    namespace: {{ include "moleport.namespace" .root }}
{{- end }}

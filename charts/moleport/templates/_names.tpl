{{/* Names of objects and what they share: namespace, labels, selectors. */}}

{{- define "moleport.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* Prefix of all names. 40 characters leave room for the longest suffix and for the hash of a pod. */}}
{{- define "moleport.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- $name := include "moleport.name" . }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "moleport.namespace" -}}
{{- default .Release.Namespace .Values.namespaceOverride }}
{{- end }}

{{/* Name of an object of the cluster: two releases of one name in two namespaces must not share it. */}}
{{- define "moleport.clusterName" -}}
{{- $namespace := include "moleport.namespace" . }}
{{- $fullname := include "moleport.fullname" . }}
{{- if eq $namespace $fullname }}
{{- $fullname }}
{{- else }}
{{- printf "%s-%s" $namespace $fullname | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* Labels that select the pods of a component; never change them, selectors are immutable. */}}
{{- define "moleport.selector" -}}
app.kubernetes.io/name: {{ include "moleport.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* Labels of pods: nothing that changes with the chart alone, or an upgrade would restart the server for nothing. */}}
{{- define "moleport.podLabels" -}}
{{ include "moleport.selector" . }}
app.kubernetes.io/part-of: moleport
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* All labels of an object. Takes root and component. */}}
{{- define "moleport.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{ include "moleport.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: moleport
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Metadata of an object in our namespace. Takes root, component, suffix; and optionally labels and annotations
     (maps) or name, which replaces the prefix and the suffix. */}}
{{- define "moleport.metadata" -}}
name: {{ default (printf "%s%s" (include "moleport.fullname" .root) (default "" .suffix)) .name }}
namespace: {{ default (include "moleport.namespace" .root) .namespace }}
labels:
  {{- include "moleport.labels" . | nindent 2 }}
  {{- with .labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with merge (dict) (default (dict) .annotations) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Metadata of an object of the cluster. Takes the same, without a namespace. */}}
{{- define "moleport.clusterMetadata" -}}
name: {{ default (printf "%s%s" (include "moleport.clusterName" .root) (default "" .suffix)) .name }}
labels:
  {{- include "moleport.labels" . | nindent 2 }}
  {{- with .labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with merge (dict) (default (dict) .annotations) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Takes root and component. */}}
{{- define "moleport.serviceAccountName" -}}
{{- $account := (index .root.Values .component).serviceAccount }}
{{- if $account.create }}
{{- default (printf "%s-%s" (include "moleport.fullname" .root) .component) $account.name }}
{{- else }}
{{- default "default" $account.name }}
{{- end }}
{{- end }}

{{- define "moleport.image" -}}
{{- $image := .Values.image }}
{{- $registry := default $image.registry .Values.global.imageRegistry }}
{{- $name := $image.repository }}
{{- with $registry }}{{ $name = printf "%s/%s" . $name }}{{ end }}
{{- if $image.digest }}
{{- printf "%s@%s" $name $image.digest }}
{{- else }}
{{- printf "%s:%s" $name (default .Chart.AppVersion $image.tag) }}
{{- end }}
{{- end }}

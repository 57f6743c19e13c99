{{/* What Helm's objects are known by. */}}
{{- define "naru.labels" -}}
app.kubernetes.io/name: naru
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "naru.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "naru.secret" -}}
{{ .Values.gossip.existingSecret | default "naru-gossip" }}
{{- end }}

{{/* Whether an object of the cluster, or none, may be this release's: (list $ OBJECT). */}}
{{- define "naru.mine" -}}
{{- $root := index . 0 }}
{{- $annotations := dig "metadata" "annotations" dict (index . 1) }}
{{- $name := get $annotations "meta.helm.sh/release-name" }}
{{- $namespace := get $annotations "meta.helm.sh/release-namespace" }}
{{- if or (not (index . 1)) (and (eq $name $root.Release.Name) (eq $namespace $root.Release.Namespace)) }}yes{{ end }}
{{- end }}

{{/* The objects of a file of deploy/, in the release's namespace: (list $ FILE). */}}
{{- define "naru.objects" -}}
{{- $root := index . 0 }}
{{- $text := $root.Files.Get (printf "files/%s" (index . 1)) }}
{{- range regexSplit "(?m)^---$" $text -1 }}
{{- $object := . | replace "naru-system" $root.Release.Namespace | fromYaml }}
{{- $_ := set $object.metadata "labels" (include "naru.labels" $root | fromYaml) }}
---
{{ toYaml $object }}
{{- end }}
{{- end }}

{{/* Flags of agents and controllers alike, then these: (list $ ARGS). */}}
{{- define "naru.args" -}}
{{- $values := (index . 0).Values }}
{{- with $values.loadBalancerClass }}
- {{ printf "--load-balancer-class=%s" . | quote }}
{{- end }}
{{- with $values.metrics }}
{{- if .enabled }}
- {{ printf "--metrics=%s:%v" .address .port | quote }}
{{- end }}
{{- end }}
{{- range index . 1 }}
- {{ . | quote }}
{{- end }}
{{- end }}

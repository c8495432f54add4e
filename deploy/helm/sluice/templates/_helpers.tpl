{{/* What selects the pods of a service: (dict "root" $ "service" "gateway"). */}}
{{- define "sluice.selector" -}}
app.kubernetes.io/name: sluice
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .service }}
{{- end -}}

{{- define "sluice.labels" -}}
{{ include "sluice.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end -}}

{{/* Seconds from SIGTERM to SIGKILL: shutdown.total_ms of the file of this service, or its default, rounded up, the
     watchdog's 0.25 s, and some seconds for a busy kubelet. */}}
{{- define "sluice.killAfter" -}}
{{- $set := regexFind "(?m)^\\s*total_ms\\s*=\\s*[0-9_]+" (index .root.Values .service).config -}}
{{- $ms := regexFind "[0-9_]+$" $set | replace "_" "" | default "8000" | int -}}
{{- add (div (add $ms 999) 1000) 7 -}}
{{- end -}}

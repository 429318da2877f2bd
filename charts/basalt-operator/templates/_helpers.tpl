{{- define "basalt-operator.labels" -}}
app.kubernetes.io/name: basalt-operator
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "basalt-operator.selector" -}}
app.kubernetes.io/name: basalt-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "basalt-operator.tag" -}}
{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

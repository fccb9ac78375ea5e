{{- define "example.name" -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{- define "example.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "example.labels" -}}
{{ include "example.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "example.check" -}}
{{- $journal := (index .Values "tidemark-agent").journal -}}
{{- if and (eq $journal.type "volumeClaimTemplate") (ne .Values.workload.kind "StatefulSet") -}}
{{- fail "tidemark-agent.journal.type is volumeClaimTemplate: set workload.kind=StatefulSet" -}}
{{- end -}}
{{- if and (eq $journal.type "existingClaim") (gt (int .Values.workload.replicas) 1) -}}
{{- fail "tidemark-agent.journal.type is existingClaim: one journal takes one agent; set workload.replicas=1, or use a StatefulSet with volumeClaimTemplate" -}}
{{- end -}}
{{- end -}}

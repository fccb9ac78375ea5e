{{- /* A container of the collector's image: `root`, `name`, `args`. */ -}}
{{- define "tidemark.container" -}}
{{- $values := .root.Values -}}
name: {{ .name }}
image: {{ include "tidemark.image" .root }}
imagePullPolicy: {{ $values.image.pullPolicy }}
args: {{- toYaml .args | nindent 2 }}
{{- with $values.extraEnv }}
env: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.extraEnvFrom }}
envFrom: {{- toYaml . | nindent 2 }}
{{- end }}
securityContext: {{- toYaml $values.securityContext | nindent 2 }}
{{- end -}}

{{- define "tidemark.dataMounts" -}}
- name: config
  mountPath: /etc/tidemark
  readOnly: true
- name: data
  mountPath: /var/lib/tidemark-collector
{{- if .Values.archive.enabled }}
- name: archive
  mountPath: /var/lib/tidemark-archive
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* Volumes but that of the ledger. */ -}}
{{- define "tidemark.volumes" -}}
- {{- include "tidemark.configVolume" (dict "root" . "prefix" (include "tidemark.fullname" .)) | nindent 2 }}
{{- if .Values.archive.enabled }}
- name: archive
  persistentVolumeClaim:
    claimName: {{ include "tidemark.archiveClaim" . }}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* Where and how pods of the collector's image run. */ -}}
{{- define "tidemark.podPlace" -}}
securityContext: {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- with .Values.image.pullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

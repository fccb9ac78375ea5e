{{- define "tidemark.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "tidemark.selectorLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: collector
{{- end -}}

{{- /* Labels of everything but the pods that Services select. */ -}}
{{- define "tidemark.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "tidemark.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: tidemark
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* Labels of the pods of jobs: no Service and no policy of the collector selects them. */ -}}
{{- define "tidemark.jobLabels" -}}
app.kubernetes.io/name: {{ default .root.Chart.Name .root.Values.nameOverride }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "tidemark.image" -}}
{{- $tag := default .Chart.AppVersion .Values.image.tag -}}
{{- if .Values.image.digest -}}
{{- printf "%s:%s@%s" .Values.image.repository $tag .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository $tag -}}
{{- end -}}
{{- end -}}

{{- define "tidemark.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "tidemark.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "tidemark.certificateSecret" -}}
{{- if eq .Values.certificates.source "secret" -}}
{{- required "certificates.secret.name must name the Secret that holds the collector's certificate" .Values.certificates.secret.name -}}
{{- else -}}
{{- printf "%s-tls" (include "tidemark.fullname" .) -}}
{{- end -}}
{{- end -}}

{{- define "tidemark.dataClaim" -}}
{{- default (printf "data-%s-0" (include "tidemark.fullname" .)) .Values.persistence.existingClaim -}}
{{- end -}}

{{- define "tidemark.archiveClaim" -}}
{{- default (printf "%s-archive" (include "tidemark.fullname" .)) .Values.archive.existingClaim -}}
{{- end -}}

{{- define "tidemark.ipv6" -}}
{{- if or (has "IPv6" .Values.service.ipFamilies) (hasSuffix "DualStack" .Values.service.ipFamilyPolicy) -}}
true
{{- end -}}
{{- end -}}

{{- define "tidemark.ipFamilies" -}}
{{- with .Values.service.ipFamilyPolicy -}}
ipFamilyPolicy: {{ . }}
{{ end -}}
{{- with .Values.service.ipFamilies -}}
ipFamilies: {{- toYaml . | nindent 2 }}
{{- end -}}
{{- end -}}

{{- /* What Services have in common: `service` is a part of values.service. */ -}}
{{- define "tidemark.serviceKind" -}}
type: {{ .service.type }}
{{- if ne .service.type "ClusterIP" }}
externalTrafficPolicy: {{ .service.externalTrafficPolicy }}
{{- end }}
{{- if eq .service.type "LoadBalancer" }}
{{- with .service.loadBalancerClass }}
loadBalancerClass: {{ . }}
{{- end }}
{{- with .service.loadBalancerSourceRanges }}
loadBalancerSourceRanges: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end -}}

{{- /* Names by which agents in the cluster reach the collector. */ -}}
{{- define "tidemark.dnsNames" -}}
{{- $name := include "tidemark.fullname" . }}
- {{ $name }}
- {{ $name }}.{{ .Release.Namespace }}
- {{ $name }}.{{ .Release.Namespace }}.svc
- {{ $name }}.{{ .Release.Namespace }}.svc.cluster.local
{{- end -}}

{{- /* Seconds of a duration such as 10s, 5m, 24h; milliseconds are rounded up. */ -}}
{{- define "tidemark.seconds" -}}
{{- $number := regexFind "^[0-9]+" . | int64 -}}
{{- $unit := regexFind "[a-z]+$" . -}}
{{- if eq $unit "ms" -}}{{- div (add $number 999) 1000 -}}
{{- else -}}{{- mul $number (get (dict "s" 1 "m" 60 "h" 3600 "d" 86400) $unit) -}}
{{- end -}}
{{- end -}}

{{/*
The volumes of the agent: items of the pod's `volumes`.

  spec:
    volumes:
      {{- include "tidemark.agent.volumes" . | nindent 6 }}
*/}}
{{- define "tidemark.agent.volumes" -}}
{{- $scope := dict -}}
{{- include "tidemark.agent.resolve" (dict "in" . "out" $scope) -}}
{{- $v := $scope.values -}}
- name: tidemark-tls
  {{- if eq $v.certificate.source "secret" }}
  secret:
    secretName: {{ tpl $v.certificate.secret.name $scope.root }}
    # Only the agent's container mounts it; the user there is not the owner, who is root.
    defaultMode: 0444
  {{- else }}
  csi:
    driver: csi.cert-manager.io
    readOnly: true
    volumeAttributes:
      csi.cert-manager.io/issuer-name: {{ $v.certificate.issuer.name | quote }}
      csi.cert-manager.io/issuer-kind: {{ $v.certificate.issuer.kind | quote }}
      csi.cert-manager.io/issuer-group: {{ $v.certificate.issuer.group | quote }}
      csi.cert-manager.io/common-name: {{ $v.certificate.identity | trunc 64 | quote }}
      csi.cert-manager.io/uri-sans: {{ printf "tidemark://agent/%s" $v.certificate.identity | quote }}
      csi.cert-manager.io/key-usages: "digital signature,client auth"
      csi.cert-manager.io/duration: {{ $v.certificate.duration | quote }}
      csi.cert-manager.io/renew-before: {{ $v.certificate.renewBefore | quote }}
      csi.cert-manager.io/certificate-file: tls.crt
      csi.cert-manager.io/privatekey-file: tls.key
      csi.cert-manager.io/ca-file: ca.crt
      csi.cert-manager.io/fs-group: {{ int64 ($v.securityContext.runAsGroup | default 65532) | quote }}
  {{- end }}
{{- if $v.doors.sockets.enabled }}
- name: tidemark-run
  emptyDir:
    sizeLimit: 1Mi
{{- end }}
{{- if eq $v.journal.type "emptyDir" }}
- name: tidemark-journal
  emptyDir:
    sizeLimit: {{ $v.journal.emptyDir.sizeLimit }}
{{- else if eq $v.journal.type "ephemeral" }}
- name: tidemark-journal
  ephemeral:
    volumeClaimTemplate:
      spec:
        {{- include "tidemark.agent.claimSpec" $v | nindent 8 }}
{{- else if eq $v.journal.type "existingClaim" }}
- name: tidemark-journal
  persistentVolumeClaim:
    claimName: {{ tpl $v.journal.existingClaim $scope.root }}
{{- end }}
{{- end -}}

{{/*
The journal's volume of each pod of a StatefulSet, with `journal.type: volumeClaimTemplate`; nothing otherwise.

  spec:
    volumeClaimTemplates:
      {{- include "tidemark.agent.volumeClaimTemplate" . | nindent 6 }}
*/}}
{{- define "tidemark.agent.volumeClaimTemplate" -}}
{{- $scope := dict -}}
{{- include "tidemark.agent.resolve" (dict "in" . "out" $scope) -}}
{{- if eq $scope.values.journal.type "volumeClaimTemplate" -}}
- metadata:
    name: tidemark-journal
  spec:
    {{- include "tidemark.agent.claimSpec" $scope.values | nindent 4 }}
{{- end -}}
{{- end -}}

{{- define "tidemark.agent.claimSpec" -}}
accessModes: [{{ .journal.volumeClaim.accessMode | quote }}]
{{- with .journal.volumeClaim.storageClassName }}
storageClassName: {{ . | quote }}
{{- end }}
resources:
  requests:
    storage: {{ .journal.volumeClaim.size }}
{{- end -}}

{{/*
The mount that an application's container needs to send over the sockets: items of its `volumeMounts`. Read-only is enough
to send, and keeps the application from removing a socket. Nothing where the sockets are off.

  containers:
    - name: app
      volumeMounts:
        {{- include "tidemark.agent.volumeMounts" . | nindent 8 }}
*/}}
{{- define "tidemark.agent.volumeMounts" -}}
{{- $scope := dict -}}
{{- include "tidemark.agent.resolve" (dict "in" . "out" $scope) -}}
{{- if $scope.values.doors.sockets.enabled -}}
- name: tidemark-run
  mountPath: {{ $scope.values.doors.sockets.path }}
  readOnly: true
{{- end -}}
{{- end -}}

{{/*
Variables that tell an application where the doors are: items of its `env`. Those of doors that are off are left out.

  TIDEMARK_STATSD_HOST, TIDEMARK_STATSD_PORT   DogStatsD over UDP
  TIDEMARK_DSD_SOCKET                          DogStatsD, Unix datagrams
  TIDEMARK_DSD_STREAM_SOCKET                   DogStatsD, Unix stream
  TIDEMARK_EVENTS_SOCKET                       JSON lines, acknowledged
  TIDEMARK_EVENTS_URL                          CloudEvents over HTTP, acknowledged
  TIDEMARK_EVENTS_TOKEN                        the bearer token of that door, where it asks for one
  DD_AGENT_HOST, DD_DOGSTATSD_PORT             with applicationEnv.dogstatsd

  containers:
    - name: app
      env:
        {{- include "tidemark.agent.env" . | nindent 8 }}
*/}}
{{- define "tidemark.agent.env" -}}
{{- $scope := dict -}}
{{- include "tidemark.agent.resolve" (dict "in" . "out" $scope) -}}
{{- $doors := $scope.values.doors -}}
{{- $lines := list -}}
{{- if $doors.udp.enabled -}}
{{- $lines = concat $lines (list (dict "name" "TIDEMARK_STATSD_HOST" "value" "127.0.0.1") (dict "name" "TIDEMARK_STATSD_PORT" "value" (printf "%d" (int64 $doors.udp.port)))) -}}
{{- if $scope.values.applicationEnv.dogstatsd -}}
{{- $lines = concat $lines (list (dict "name" "DD_AGENT_HOST" "value" "127.0.0.1") (dict "name" "DD_DOGSTATSD_PORT" "value" (printf "%d" (int64 $doors.udp.port)))) -}}
{{- end -}}
{{- end -}}
{{- if $doors.sockets.enabled -}}
{{- $lines = concat $lines (list (dict "name" "TIDEMARK_DSD_SOCKET" "value" (printf "%s/dsd.socket" $doors.sockets.path)) (dict "name" "TIDEMARK_DSD_STREAM_SOCKET" "value" (printf "%s/dsd-stream.socket" $doors.sockets.path)) (dict "name" "TIDEMARK_EVENTS_SOCKET" "value" (printf "%s/events.socket" $doors.sockets.path))) -}}
{{- end -}}
{{- if $doors.http.enabled -}}
{{- $lines = append $lines (dict "name" "TIDEMARK_EVENTS_URL" "value" (printf "http://127.0.0.1:%d/api/v1/events" (int64 $doors.http.port))) -}}
{{- with $doors.http.tokenSecret -}}
{{- if .name -}}
{{- $lines = append $lines (dict "name" "TIDEMARK_EVENTS_TOKEN" "valueFrom" (dict "secretKeyRef" (dict "name" .name "key" .key))) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- with $lines -}}{{- toYaml . -}}{{- end -}}
{{- end -}}

{{/*
Keys of the pod's security context that the journal needs on a volume of a storage class: its group. Not needed with an emptyDir.

  spec:
    securityContext:
      {{- include "tidemark.agent.podSecurityContext" . | nindent 6 }}
*/}}
{{- define "tidemark.agent.podSecurityContext" -}}
{{- $scope := dict -}}
{{- include "tidemark.agent.resolve" (dict "in" . "out" $scope) -}}
fsGroup: {{ int64 ($scope.values.securityContext.runAsGroup | default 65532) }}
fsGroupChangePolicy: OnRootMismatch
{{- end -}}

{{/*
The pod's grace: the application's, then the agent's, and five seconds between and after. Ended by SIGKILL, the agent leaves what it did
not ship in the journal, and an emptyDir goes with the pod.

  spec:
    terminationGracePeriodSeconds: {{ include "tidemark.agent.terminationGracePeriodSeconds" . }}
*/}}
{{- define "tidemark.agent.terminationGracePeriodSeconds" -}}
{{- $scope := dict -}}
{{- include "tidemark.agent.resolve" (dict "in" . "out" $scope) -}}
{{- add (int64 $scope.values.applicationGraceSeconds) (int64 $scope.values.shutdownGraceSeconds) 5 -}}
{{- end -}}

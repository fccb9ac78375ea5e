{{/*
The agent as a native sidecar: an item of `initContainers`. List it before init containers that send events.

  spec:
    initContainers:
      {{- include "tidemark.agent" . | nindent 6 }}
*/}}
{{- define "tidemark.agent" -}}
{{- $scope := dict -}}
{{- include "tidemark.agent.resolve" (dict "in" . "out" $scope) -}}
{{- $v := $scope.values -}}
- name: tidemark-agent
  image: {{ include "tidemark.agent.image" $v | quote }}
  imagePullPolicy: {{ $v.image.pullPolicy }}
  restartPolicy: Always
  # The whole configuration is in the environment.
  args: ["run"]
  env:
    {{- include "tidemark.agent.configuration" $scope | trim | nindent 4 }}
    {{- with $v.extraEnv }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  ports:
    - name: tm-admin
      containerPort: {{ int64 $v.admin.port }}
      protocol: TCP
  {{- if $v.probes.startup.enabled }}
  startupProbe:
    httpGet:
      path: /readyz
      port: tm-admin
    periodSeconds: {{ int64 $v.probes.startup.periodSeconds }}
    timeoutSeconds: {{ int64 $v.probes.startup.timeoutSeconds }}
    failureThreshold: {{ int64 $v.probes.startup.failureThreshold }}
  {{- end }}
  {{- if $v.probes.liveness.enabled }}
  livenessProbe:
    httpGet:
      path: /healthz
      port: tm-admin
    periodSeconds: {{ int64 $v.probes.liveness.periodSeconds }}
    timeoutSeconds: {{ int64 $v.probes.liveness.timeoutSeconds }}
    failureThreshold: {{ int64 $v.probes.liveness.failureThreshold }}
  {{- end }}
  {{- if $v.lifecycle }}
  lifecycle:
    {{- toYaml $v.lifecycle | nindent 4 }}
  {{- else if $v.prepareStop }}
  lifecycle:
    preStop:
      exec:
        command: ["tidemark-agent", "prepare-stop", "--admin", "http://{{ include "tidemark.agent.adminLocal" $v }}"]
  {{- end }}
  resources:
    {{- include "tidemark.agent.resources" $v | nindent 4 }}
  securityContext:
    {{- toYaml $v.securityContext | nindent 4 }}
  volumeMounts:
    - name: tidemark-journal
      mountPath: /var/lib/tidemark-agent
    - name: tidemark-tls
      mountPath: {{ include "tidemark.agent.tlsPath" $v }}
      readOnly: true
    {{- if $v.doors.sockets.enabled }}
    - name: tidemark-run
      mountPath: {{ $v.doors.sockets.path }}
    {{- end }}
{{- end -}}

{{- define "tidemark.agent.image" -}}
{{- .image.repository }}{{ with .image.tag }}:{{ . }}{{ end }}{{ with .image.digest }}@{{ . }}{{ end }}
{{- end -}}

{{/* The admin address, from within the pod. */}}
{{- define "tidemark.agent.adminLocal" -}}
{{- ternary "[::1]" "127.0.0.1" (contains ":" .admin.address) }}:{{ int64 .admin.port }}
{{- end -}}

{{/* Resources; with an emptyDir the scheduler keeps room for the journal. */}}
{{- define "tidemark.agent.resources" -}}
{{- $resources := deepCopy .resources -}}
{{- if eq .journal.type "emptyDir" -}}
{{- $storage := dict "requests" (dict "ephemeral-storage" .journal.emptyDir.sizeLimit) -}}
{{- $resources = mustMerge $resources $storage -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end -}}

{{/* The agent's configuration as environment. Takes what `tidemark.agent.resolve` sets. */}}
{{- define "tidemark.agent.configuration" -}}
{{- $v := .values -}}
{{- $tls := include "tidemark.agent.tlsPath" $v -}}
{{- $set := dict -}}
{{- range $name, $value := $v.config -}}
{{- if kindIs "map" $value -}}
{{- range $key, $one := $value -}}
{{- $_ := set $set (printf "%s__%s" (upper $name) (upper $key)) $one -}}
{{- end -}}
{{- else -}}
{{- $_ := set $set (upper $name) $value -}}
{{- end -}}
{{- end -}}
{{- $_ := set $set "UPLINK__COLLECTORS" $v.collectors -}}
{{- with $v.serverName -}}{{- $_ := set $set "UPLINK__SERVER_NAME" . -}}{{- end -}}
{{- $certificate := "tls.crt" -}}{{- $key := "tls.key" -}}{{- $ca := "" -}}
{{- if eq $v.certificate.source "secret" -}}
{{- $certificate = $v.certificate.secret.certificateKey -}}
{{- $key = $v.certificate.secret.privateKeyKey -}}
{{- $ca = $v.certificate.secret.caKey -}}
{{- else if not $v.caPem -}}
{{- $ca = "ca.crt" -}}
{{- end -}}
{{- if $ca -}}
{{- $_ := set $set "UPLINK__CA" (printf "%s/%s" $tls $ca) -}}
{{- else -}}
{{- $_ := set $set "UPLINK__CA_PEM" $v.caPem -}}
{{- end -}}
{{- $_ := set $set "UPLINK__CERTIFICATE" (printf "%s/%s" $tls $certificate) -}}
{{- $_ := set $set "UPLINK__KEY" (printf "%s/%s" $tls $key) -}}
{{- $_ := set $set "JOURNAL__PATH" "/var/lib/tidemark-agent/journal.redb" -}}
{{- $_ := set $set "JOURNAL__BYTES_MAX" $v.journal.bytesMax -}}
{{- $_ := set $set "DOORS__UDP" (ternary (list (printf "127.0.0.1:%d" (int64 $v.doors.udp.port)) (printf "[::1]:%d" (int64 $v.doors.udp.port))) list $v.doors.udp.enabled) -}}
{{- $_ := set $set "DOORS__HTTP" (ternary (list (printf "127.0.0.1:%d" (int64 $v.doors.http.port)) (printf "[::1]:%d" (int64 $v.doors.http.port))) list $v.doors.http.enabled) -}}
{{- range $door, $file := dict "UNIX_DATAGRAM" "dsd.socket" "DSD_STREAM" "dsd-stream.socket" "EVENTS" "events.socket" -}}
{{- $_ := set $set (printf "DOORS__%s" $door) (ternary (printf "%s/%s" $v.doors.sockets.path $file) "" $v.doors.sockets.enabled) -}}
{{- end -}}
{{- $_ := set $set "DOORS__SOCKET_MODE" $v.doors.sockets.mode -}}
{{- with $v.doors.sockets.peerUids -}}{{- $_ := set $set "DOORS__PEER_UIDS" . -}}{{- end -}}
{{- $_ := set $set "DOORS__RECEIVE_BUFFER_BYTES" $v.doors.receiveBufferBytes -}}
{{- $_ := set $set "ADMIN__LISTEN" (ternary (printf "[%s]:%d" $v.admin.address (int64 $v.admin.port)) (printf "%s:%d" $v.admin.address (int64 $v.admin.port)) (contains ":" $v.admin.address)) -}}
{{- $_ := set $set "SHUTDOWN_GRACE" (printf "%ds" (int64 $v.shutdownGraceSeconds)) -}}
{{- range $name, $value := $set }}
- name: TIDEMARK_AGENT__{{ $name }}
  value: {{ include "tidemark.agent.envValue" $value }}
{{- end }}
{{- with $v.doors.http.tokenSecret }}
{{- if .name }}
- name: TIDEMARK_AGENT__DOORS__HTTP_TOKEN
  valueFrom:
    secretKeyRef:
      name: {{ .name }}
      key: {{ .key }}
{{- end }}
{{- end }}
{{- end -}}

{{/*
A cert-manager Certificate that keeps `certificate.secret.name` filled: a whole document. Its Secret has `tls.crt`, `tls.key` and, for
most issuers, `ca.crt`.

  {{- include "tidemark.agent.certificate" . }}
*/}}
{{- define "tidemark.agent.certificate" -}}
{{- $scope := dict -}}
{{- include "tidemark.agent.resolve" (dict "in" . "out" $scope) -}}
{{- $v := $scope.values -}}
{{- if not (and $v.certificate.issuer.name $v.certificate.identity) -}}
{{- fail "tidemark-agent: a Certificate needs certificate.issuer.name and certificate.identity" -}}
{{- end -}}
{{- $name := tpl $v.certificate.secret.name $scope.root -}}
apiVersion: cert-manager.io/v1
kind: Certificate
metadata:
  name: {{ $name }}
  namespace: {{ $scope.root.Release.Namespace }}
spec:
  secretName: {{ $name }}
  commonName: {{ $v.certificate.identity | trunc 64 | quote }}
  uris:
    - {{ printf "tidemark://agent/%s" $v.certificate.identity | quote }}
  usages:
    - digital signature
    - client auth
  duration: {{ $v.certificate.duration }}
  renewBefore: {{ $v.certificate.renewBefore }}
  privateKey:
    algorithm: ECDSA
    size: 256
    encoding: PKCS8
    rotationPolicy: Always
  issuerRef:
    name: {{ $v.certificate.issuer.name }}
    kind: {{ $v.certificate.issuer.kind }}
    group: {{ $v.certificate.issuer.group }}
{{- end -}}

{{/*
What a NetworkPolicy must let out of the pod for the agent: items of `spec.egress`. Port 8129 over UDP (QUIC) and TCP, and names (DNS).

  spec:
    policyTypes: [Egress]
    egress:
      {{- include "tidemark.agent.egress" . | nindent 4 }}
*/}}
{{- define "tidemark.agent.egress" -}}
{{- $scope := dict -}}
{{- include "tidemark.agent.resolve" (dict "in" . "out" $scope) -}}
{{- $egress := $scope.values.egress -}}
- ports:
    - port: {{ int64 $egress.port }}
      protocol: UDP
    - port: {{ int64 $egress.port }}
      protocol: TCP
  {{- with $egress.to }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
- ports:
    - port: 53
      protocol: UDP
    - port: 53
      protocol: TCP
{{- end -}}

{{- /* A value of TOML. Numbers of values arrive as floats. JSON's texts are TOML's too. */ -}}
{{- define "tidemark.toml.value" -}}
{{- if kindIs "bool" . -}}{{ ternary "on" "off" . | quote }}
{{- else if kindIs "string" . -}}{{ toJson . }}
{{- else -}}{{ int64 . }}
{{- end -}}
{{- end -}}

{{- /* Lines of a table of TOML; what is empty has the program's default. */ -}}
{{- define "tidemark.toml.table" -}}
{{- range $key, $value := . }}
{{- if not (or (kindIs "invalid" $value) (eq (toString $value) "")) }}
{{ $key }} = {{ include "tidemark.toml.value" $value }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "tidemark.collector.toml" -}}
{{- $config := .Values.config -}}
{{- $address := ternary "[::]" "0.0.0.0" (eq (include "tidemark.ipv6" .) "true") -}}
data_dir = "/var/lib/tidemark-collector/ledger"
catalog = "/etc/tidemark/catalog.toml"
catalog_source = {{ .Values.catalog.source | quote }}
{{- include "tidemark.toml.table" (pick $config "log_format" "log_level" "shutdown_grace") }}

[listen]
quic = "{{ $address }}:8129"
tcp = "same"
http = "{{ $address }}:8130"

[tls]
ca = "/etc/tidemark/tls/ca.crt"
certificate = "/etc/tidemark/tls/tls.crt"
key = "/etc/tidemark/tls/tls.key"
{{- include "tidemark.toml.table" $config.tls }}
{{- range $section := list "billing" "archive" "certificate" "reconcile" "session" "ledger" "streams" }}
{{- $table := deepCopy (default dict (get $config $section)) }}
{{- if and (eq $section "archive") $.Values.archive.enabled }}
{{- if $table.url }}{{ fail "archive.enabled and config.archive.url exclude each other: the archive is in a folder or in an object store" }}{{ end }}
{{- $_ := set $table "folder" "/var/lib/tidemark-archive/archive" }}
{{- end }}
{{- with include "tidemark.toml.table" $table }}

[{{ $section }}]
{{- . }}
{{- end }}
{{- end }}
{{- range $token := .Values.api.tokens }}

[[api.token]]
name = {{ toJson $token.name }}
{{- with $token.role }}
role = {{ toJson . }}
{{- end }}
{{- with $token.customer }}
customer = {{ toJson . }}
{{- end }}
{{- if $token.sha256 }}
token_sha256 = {{ toJson $token.sha256 }}
{{- else }}
token_file = {{ printf "/etc/tidemark/tokens/%s" $token.name | toJson }}
{{- end }}
{{- end }}
{{ end -}}

{{- define "tidemark.catalog.toml" -}}
{{- if gt (len .Values.catalog.text) 1000000 -}}
{{- fail (printf "catalog.text has %d bytes, and a ConfigMap holds 1,000,000: set catalog.source to ledger and apply the catalogue by `PUT /v1/catalog`" (len .Values.catalog.text)) -}}
{{- end -}}
{{ .Values.catalog.text }}
{{- end -}}

{{- /* Where the catalogue's file comes from: `root`, `prefix` of the chart's own ConfigMaps. */ -}}
{{- define "tidemark.configVolume" -}}
{{- $values := .root.Values -}}
{{- $secret := $values.certificates.secret -}}
{{- if ne $values.certificates.source "secret" -}}
{{- $secret = dict "caKey" "ca.crt" "certificateKey" "tls.crt" "privateKeyKey" "tls.key" -}}
{{- end -}}
name: config
projected:
  defaultMode: 0440
  sources:
    - configMap:
        name: {{ .prefix }}-config
        items:
          - key: collector.toml
            path: collector.toml
    - configMap:
        name: {{ default (printf "%s-catalog" .prefix) $values.catalog.existingConfigMap.name }}
        items:
          - key: {{ ternary $values.catalog.existingConfigMap.key "catalog.toml" (ne $values.catalog.existingConfigMap.name "") }}
            path: catalog.toml
    - secret:
        name: {{ include "tidemark.certificateSecret" .root }}
        items:
          - key: {{ $secret.caKey }}
            path: tls/ca.crt
          - key: {{ $secret.certificateKey }}
            path: tls/tls.crt
          - key: {{ $secret.privateKeyKey }}
            path: tls/tls.key
    {{- range $values.api.tokens }}
    {{- if .secretName }}
    - secret:
        name: {{ .secretName }}
        items:
          - key: {{ .secretKey }}
            path: tokens/{{ .name }}
    {{- end }}
    {{- end }}
{{- end -}}

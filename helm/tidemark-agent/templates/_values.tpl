{{/*
What a template was called with: `.`, or `(dict "root" $ "values" $more)` for a chart with several workloads, where $more
is laid over the values of `tidemark-agent`. Takes (dict "in" . "out" $scope); sets "root" and "values" in $scope.
*/}}
{{- define "tidemark.agent.resolve" -}}
{{- $root := .in -}}
{{- $more := dict -}}
{{- if hasKey .in "root" -}}
{{- $root = .in.root -}}
{{- $more = .in.values | default dict -}}
{{- end -}}
{{- if not (hasKey $root "Values") -}}
{{- fail "tidemark-agent: call its templates with the chart's root: {{ include \"tidemark.agent\" $ }}, or (dict \"root\" $ \"values\" .Values.worker.agent)" -}}
{{- end -}}
{{- $own := index $root.Values "tidemark-agent" -}}
{{- if not (kindIs "map" $own) -}}
{{- fail "tidemark-agent: there are no values `tidemark-agent`: name the chart `tidemark-agent` in the dependencies, without an alias" -}}
{{- end -}}
{{- $values := mustMergeOverwrite (deepCopy $own) (deepCopy $more) -}}
{{- include "tidemark.agent.check" (dict "root" $root "values" $values) -}}
{{- $_ := set .out "root" $root -}}
{{- $_ := set .out "values" $values -}}
{{- end -}}

{{/*
Bytes of a size: `.text` in the agent's units (512, 64KiB, 1.5GiB, 2GB) or as a Kubernetes quantity (640Mi, 5Gi, 2G).
*/}}
{{- define "tidemark.agent.bytes" -}}
{{- $text := .text -}}
{{- if not (kindIs "string" $text) -}}
{{- $text = int64 $text | toString -}}
{{- end -}}
{{- $number := regexFind "^[0-9]+(\\.[0-9]+)?" $text -}}
{{- $unit := trimPrefix $number $text | trim -}}
{{- $factors := dict "" 1.0 "B" 1.0 "k" 1e3 "K" 1e3 "KB" 1e3 "M" 1e6 "MB" 1e6 "G" 1e9 "GB" 1e9 "T" 1e12 "TB" 1e12 "Ki" 1024.0 "KiB" 1024.0 "Mi" 1048576.0 "MiB" 1048576.0 "Gi" 1073741824.0 "GiB" 1073741824.0 "Ti" 1099511627776.0 "TiB" 1099511627776.0 -}}
{{- if or (eq $number "") (not (hasKey $factors $unit)) -}}
{{- fail (printf "tidemark-agent: %s: %q is no size" .key $text) -}}
{{- end -}}
{{- mulf (float64 $number) (get $factors $unit) | int64 -}}
{{- end -}}

{{/* Rules between values, which a schema cannot say. */}}
{{- define "tidemark.agent.check" -}}
{{- $v := .values -}}
{{- if not $v.collectors -}}
{{- fail "tidemark-agent: `collectors` is empty: say where the collector listens, such as [\"tidemark.billing.svc:8129\"]" -}}
{{- end -}}
{{- $budget := include "tidemark.agent.bytes" (dict "key" "journal.bytesMax" "text" $v.journal.bytesMax) | int64 -}}
{{- if lt $budget 1048576 -}}
{{- fail (printf "tidemark-agent: journal.bytesMax is %v: that is too small a journal" $v.journal.bytesMax) -}}
{{- end -}}
{{- $room := dict "key" "" -}}
{{- if eq $v.journal.type "emptyDir" -}}
{{- $room = dict "key" "journal.emptyDir.sizeLimit" "text" $v.journal.emptyDir.sizeLimit -}}
{{- else if or (eq $v.journal.type "ephemeral") (eq $v.journal.type "volumeClaimTemplate") -}}
{{- $room = dict "key" "journal.volumeClaim.size" "text" $v.journal.volumeClaim.size -}}
{{- else if not $v.journal.existingClaim -}}
{{- fail "tidemark-agent: journal.type is existingClaim, and journal.existingClaim is empty: name the claim" -}}
{{- end -}}
{{- if $room.key -}}
{{- $size := include "tidemark.agent.bytes" $room | int64 -}}
{{- if lt (mul $size 2) (mul $budget 5) -}}
{{- $needed := divf (mulf (float64 $budget) 2.5) 1048576.0 | ceil | int64 -}}
{{- $why := ternary "a pod that exceeds it is evicted, the application with it" "a full volume ends the agent" (eq $v.journal.type "emptyDir") -}}
{{- fail (printf "tidemark-agent: %s is %v, less than 2.5 times journal.bytesMax (%v): %s. Give it at least %dMi, or lower journal.bytesMax" $room.key $room.text $v.journal.bytesMax $why $needed) -}}
{{- end -}}
{{- end -}}
{{- if eq $v.certificate.source "secret" -}}
{{- if not $v.certificate.secret.name -}}
{{- fail "tidemark-agent: certificate.secret.name is empty: name the Secret with the agent's certificate and key" -}}
{{- end -}}
{{- if and $v.caPem $v.certificate.secret.caKey -}}
{{- fail "tidemark-agent: caPem and certificate.secret.caKey are both given: leave one of them empty" -}}
{{- end -}}
{{- if not (or $v.caPem $v.certificate.secret.caKey) -}}
{{- fail "tidemark-agent: nothing says which CA signs the collector: give caPem (--set-file tidemark-agent.caPem=ca.pem), or certificate.secret.caKey" -}}
{{- end -}}
{{- else -}}
{{- if not (and $v.certificate.issuer.name $v.certificate.identity) -}}
{{- fail "tidemark-agent: certificate.source is csi: give certificate.issuer.name and certificate.identity" -}}
{{- end -}}
{{- end -}}
{{- if or $v.probes.startup.enabled $v.probes.liveness.enabled -}}
{{- if or (hasPrefix "127." $v.admin.address) (eq "::1" $v.admin.address) -}}
{{- fail (printf "tidemark-agent: admin.address is %s, where the kubelet's probes do not get: give 0.0.0.0 or ::, or turn probes.startup and probes.liveness off" $v.admin.address) -}}
{{- end -}}
{{- end -}}
{{- if not (or $v.doors.udp.enabled $v.doors.http.enabled $v.doors.sockets.enabled) -}}
{{- fail "tidemark-agent: every door is closed: enable doors.udp, doors.http or doors.sockets" -}}
{{- end -}}
{{- end -}}

{{/* The certificate's folder in the agent's container. */}}
{{- define "tidemark.agent.tlsPath" -}}
/etc/tidemark/tls
{{- end -}}

{{/* A value of the environment: lists with commas, whole numbers, and no `$(NAME)` that the kubelet would replace. */}}
{{- define "tidemark.agent.envValue" -}}
{{- $text := "" -}}
{{- if kindIs "slice" . -}}
{{- $items := list -}}
{{- range . -}}{{- $items = append $items (include "tidemark.agent.plain" .) -}}{{- end -}}
{{- $text = join "," $items -}}
{{- else -}}
{{- $text = include "tidemark.agent.plain" . -}}
{{- end -}}
{{- replace "$(" "$$(" $text | quote -}}
{{- end -}}

{{- define "tidemark.agent.plain" -}}
{{- if or (kindIs "float64" .) (kindIs "int64" .) (kindIs "int" .) -}}{{- int64 . -}}{{- else -}}{{- . -}}{{- end -}}
{{- end -}}

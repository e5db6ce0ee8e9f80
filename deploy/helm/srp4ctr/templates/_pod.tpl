{{/* What all our pods have in common: who they run as, what they mount, what they know. */}}

{{/* Takes a dict: uid, gid. */}}
{{- define "srp4ctr.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ .uid }}
runAsGroup: {{ .gid }}
fsGroup: {{ .gid }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile: { type: RuntimeDefault }
{{- end -}}

{{- define "srp4ctr.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end -}}

{{/*
The start of a pod's specification. No pod calls Kubernetes' API, so none has a token.
Kubernetes' variables of services would look like settings of ours (SRP4CTR_TRITON_PORT),
and an unknown setting is an error: hence no service links.
Takes a list: the root context, the component's values, its user.
*/}}
{{- define "srp4ctr.pod" -}}
{{- $root := index . 0 -}}
{{- $own := index . 1 -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with $root.Values.serviceAccountName }}
serviceAccountName: {{ . }}
{{- end }}
{{- with $root.Values.images.pullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
securityContext: {{ include "srp4ctr.podSecurity" (index . 2) | nindent 2 }}
{{- range $field := list "nodeSelector" "tolerations" "affinity" "topologySpreadConstraints" }}
{{- with get $own $field }}
{{ $field }}: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- with $own.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{/*
Labels of a pod: none changes with the chart's version, or each upgrade would restart Triton.
Takes a list: the root context, the component, its networks.
*/}}
{{- define "srp4ctr.podLabels" -}}
{{ include "srp4ctr.selector" (list (index . 0) (index . 1)) }}
{{- range index . 2 }}
srp4ctr/network-{{ . }}: "true"
{{- end }}
{{- end -}}

{{- define "srp4ctr.ours" -}}
uid: 10001
gid: 10001
{{- end -}}

{{/* The files in /run/secrets. Takes a list: the root context, the names of the files. */}}
{{- define "srp4ctr.secrets" -}}
{{- $secrets := (index . 0).Values.secrets -}}
- name: secrets
  projected:
    defaultMode: 0440
    sources:
      {{- range index . 1 }}
      {{- $elsewhere := default dict (get $secrets.elsewhere .) }}
      - secret:
          name: {{ default $secrets.name $elsewhere.name }}
          items: [{ key: {{ default . $elsewhere.key }}, path: {{ . }} }]
      {{- end }}
{{- end -}}

{{/* Takes a list: the root context, the names of the claims. */}}
{{- define "srp4ctr.volumes" -}}
{{- $root := index . 0 -}}
{{ range index . 1 -}}
- name: {{ . }}
  persistentVolumeClaim: { claimName: {{ include "srp4ctr.claim" (list $root .) }} }
{{ end -}}
- name: settings
  configMap: { name: {{ include "srp4ctr.fullname" $root }}-settings }
- name: tmp
  emptyDir: { medium: Memory, sizeLimit: 64Mi }
{{- end -}}

{{/* What each container of ours mounts besides the claims. */}}
{{- define "srp4ctr.mounts" -}}
- { name: secrets, mountPath: /run/secrets, readOnly: true }
- { name: settings, mountPath: /etc/srp4ctr, readOnly: true }
- { name: tmp, mountPath: /tmp }
{{- end -}}

{{/* The environment as a list. Takes a list of texts, each a YAML mapping; the last wins. */}}
{{- define "srp4ctr.env" -}}
{{- $all := dict -}}
{{- range . -}}
{{- $all = mergeOverwrite $all (fromYaml .) -}}
{{- end -}}
{{- $lines := list -}}
{{- range $name, $value := $all -}}
{{- $lines = append $lines (printf "- { name: %s, value: %s }" $name (quote $value)) -}}
{{- end -}}
{{- join "\n" $lines -}}
{{- end -}}

{{/* As x-settings of compose.yaml. */}}
{{- define "srp4ctr.settings" -}}
{{- $pod := include "srp4ctr.tritonPod" (list . 0) -}}
SRP4CTR_SETTINGS: /etc/srp4ctr/settings.toml
SRP4CTR_FEATURES__LOG_URI: {{ .Values.objects.log | quote }}
SRP4CTR_FEATURES__LOG_DIR: /data/events
SRP4CTR_TRAINING__BUNDLES_URI: {{ .Values.objects.bundles | quote }}
SRP4CTR_TRAINING__BUNDLES_DIR: /data/bundles
SRP4CTR_TRITON__GRPC: {{ $pod }}:8001
SRP4CTR_TRITON__METRICS_URL: http://{{ $pod }}:8002/metrics
SRP4CTR_TRITON__REPOSITORY: /models/{{ include "srp4ctr.fullname" . }}-triton-0
SRP4CTR_TRITON__BACKEND: {{ .Values.triton.backend }}
SRP4CTR_TRITON__SERVED_LOG__FOLDER: /served
SRP4CTR_STREAMS__METRICS_HOST: 0.0.0.0
SRP4CTR_MONITORING__HOST: 0.0.0.0
SRP4CTR_MONITORING__PROMETHEUS_URL: {{ .Values.monitoring.prometheusUrl | quote }}
SRP4CTR_EMBEDDED__DATA_DIR: /data/worker
{{- end -}}

{{/* As x-kafka, with the name and password of a role. Takes a list: the root context, the role. */}}
{{- define "srp4ctr.kafka" -}}
{{- $root := index . 0 -}}
SRP4CTR_KAFKA__BOOTSTRAP: {{ get (include "srp4ctr.servers" $root | fromJson) "kafka.bootstrap" | quote }}
SRP4CTR_KAFKA__SECURITY_PROTOCOL: SASL_SSL
SRP4CTR_KAFKA__SSL_CA_FILE: /run/secrets/{{ $root.Values.kafka.caFile }}
SRP4CTR_KAFKA__SASL_USERNAME: {{ index . 1 }}
SRP4CTR_KAFKA__SASL_PASSWORD_FILE: /run/secrets/kafka_{{ index . 1 }}
{{- end -}}

{{/* As x-objects, likewise. */}}
{{- define "srp4ctr.objects" -}}
{{- $objects := (index . 0).Values.objects -}}
{{- $role := index . 1 -}}
AWS_ENDPOINT_URL: {{ get (include "srp4ctr.servers" (index . 0) | fromJson) "objects.endpoint" | quote }}
AWS_REGION: {{ $objects.region | quote }}
AWS_ACCESS_KEY_ID: {{ get $objects.keyIds $role | default $role | quote }}
AWS_SECRET_ACCESS_KEY_FILE: /run/secrets/objects_{{ $role }}
SSL_CERT_FILE: {{ with $objects.caFile }}/run/secrets/{{ . }}{{ else }}/etc/ssl/certs/ca-certificates.crt{{ end }}
{{- end -}}

{{/* As x-store. */}}
{{- define "srp4ctr.store" -}}
{{- $servers := include "srp4ctr.servers" . | fromJson -}}
SRP4CTR_FEATURES__REDIS: {{ get $servers "redis.address" | quote }}
SRP4CTR_FEATURES__REDIS_TLS: "true"
SRP4CTR_FEATURES__REDIS_CA_FILE: /run/secrets/{{ .Values.redis.caFile }}
SRP4CTR_FEATURES__REGISTRY: {{ get $servers "postgres.registry" | quote }}
SRP4CTR_FEATURES__REGISTRY_PASSWORD_FILE: /run/secrets/postgres
{{- end -}}

{{/* By which name and password the store knows a role. Takes the role. */}}
{{- define "srp4ctr.asRedisUser" -}}
SRP4CTR_FEATURES__REDIS_USERNAME: {{ . }}
SRP4CTR_FEATURES__REDIS_PASSWORD_FILE: /run/secrets/redis_{{ . }}
{{- end -}}

{{- define "srp4ctr.asTritonClient" -}}
SRP4CTR_TRITON__TLS__ENABLED: "true"
SRP4CTR_TRITON__TLS__CA_FILE: /run/secrets/ca.pem
SRP4CTR_TRITON__TLS__CERTIFICATE_FILE: /run/secrets/{{ . }}.pem
SRP4CTR_TRITON__TLS__KEY_FILE: /run/secrets/{{ . }}.key
{{- end -}}

{{/*
The authorities of servers, where they have others than Triton's. Takes a list: the root
context, what is connected to.
*/}}
{{- define "srp4ctr.authorities" -}}
{{- $values := (index . 0).Values -}}
{{- $files := list "ca.pem" -}}
{{- range index . 1 -}}
{{- $files = append $files (get (get $values .) "caFile") -}}
{{- end -}}
{{- compact $files | uniq | toJson -}}
{{- end -}}

{{/* A disk of the machine's, which ends with the pod. Takes a list: the root context, its name. */}}
{{- define "srp4ctr.ownDisk" -}}
- name: {{ index . 1 }}
  emptyDir: { sizeLimit: {{ (index . 0).Values.volumes.scratch.size }} }
{{- end -}}

{{/* Names, labels and images. Nothing here is specific to one role. */}}

{{- define "srp4ctr.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/*
At most 35 characters, so that what is appended stays within Kubernetes' limits (52 for a
CronJob's and a StatefulSet's name). A longer one is cut and ends in a hash of the whole,
because two releases that differ only at their end must not share their objects.
*/}}
{{- define "srp4ctr.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- $full = default $full .Values.fullnameOverride | replace "." "-" -}}
{{- if gt (len $full) 35 -}}
{{- printf "%s-%s" ($full | trunc 28 | trimSuffix "-") (sha256sum $full | trunc 6) -}}
{{- else -}}
{{- $full -}}
{{- end -}}
{{- end -}}

{{/* Takes a list: the root context, a component. */}}
{{- define "srp4ctr.selector" -}}
app.kubernetes.io/name: {{ include "srp4ctr.name" (index . 0) }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "srp4ctr.labels" -}}
{{ include "srp4ctr.selector" . }}
app.kubernetes.io/version: {{ (index . 0).Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ (index . 0).Release.Service }}
helm.sh/chart: {{ printf "%s-%s" (index . 0).Chart.Name (index . 0).Chart.Version | replace "+" "_" | trunc 63 }}
{{- end -}}

{{/* Takes a list: the root context, a target of the Dockerfile. */}}
{{- define "srp4ctr.image" -}}
{{- $images := (index . 0).Values.images -}}
{{- $tag := default (index . 0).Chart.AppVersion $images.tag -}}
{{- with $images.registry }}{{ trimSuffix "/" . }}/{{ end -}}
srp4ctr-{{ index . 1 }}:{{ $tag }}
{{- end -}}

{{/* The address of a Triton pod. Takes a list: the root context, the pod's number. */}}
{{- define "srp4ctr.tritonPod" -}}
{{- $full := include "srp4ctr.fullname" (index . 0) -}}
{{- printf "%s-triton-%d.%s-triton-pods.%s.svc" $full (int (index . 1)) $full (index . 0).Release.Namespace -}}
{{- end -}}

{{/* The name of a volume's claim. Takes a list: the root context, data, models, served, training or monitor. */}}
{{- define "srp4ctr.claim" -}}
{{- $volume := index (index . 0).Values.volumes (index . 1) -}}
{{- default (printf "%s-%s" (include "srp4ctr.fullname" (index . 0)) (index . 1)) $volume.existingClaim -}}
{{- end -}}

{{/*
Where Kafka, Redis, Postgres and the S3 server are, as JSON: those of the values, or the bundled ones.
*/}}
{{- define "srp4ctr.servers" -}}
{{- $registry := "postgresql+psycopg://srp4ctr@postgres:5432/registry?sslmode=verify-full&sslrootcert=/run/secrets/ca.pem" -}}
{{- $bundled := dict "kafka.bootstrap" "kafka:19092" "redis.address" "redis:6379" "postgres.registry" $registry "objects.endpoint" "https://objects:7070" -}}
{{- $given := dict "kafka.bootstrap" .Values.kafka.bootstrap "redis.address" .Values.redis.address "postgres.registry" .Values.postgres.registry "objects.endpoint" .Values.objects.endpoint -}}
{{- ternary $bundled $given .Values.bundled.enabled | toJson -}}
{{- end -}}

{{/* Combinations of values that are wrong; values.schema.json checks each value by itself. */}}
{{- define "srp4ctr.check" -}}
{{- if regexMatch "^[0-9]" (include "srp4ctr.fullname" .) -}}
{{- fail (printf "release %s: a Service's name may not begin with a digit; set fullnameOverride" .Release.Name) -}}
{{- end -}}
{{- range $name, $value := include "srp4ctr.servers" . | fromJson -}}
{{- $given := index $.Values (index (splitList "." $name) 0) (index (splitList "." $name) 1) -}}
{{- if and $.Values.bundled.enabled $given -}}
{{- fail (printf "bundled.enabled brings a server of its own, but %s is %s: leave one of them out" $name $given) -}}
{{- else if not $value -}}
{{- fail (printf "%s is not set: say where the cluster's own server is, or set bundled.enabled for a try" $name) -}}
{{- end -}}
{{- end -}}
{{- $settings := fromToml .Values.settings -}}
{{- if $settings.Error -}}
{{- fail (printf "settings is not TOML: %s" $settings.Error) -}}
{{- end -}}
{{- if regexMatch "(?m)^\\s*triton\\s*=" .Values.settings -}}
{{- fail "settings: write [triton] as a table of its own: [[triton.replicas]] is appended to it" -}}
{{- end -}}
{{- $partitions := int (dig "kafka" "partitions" 4 $settings) -}}
{{- $scaling := .Values.stream.scaling -}}
{{- $most := int (ternary .Values.stream.replicas $scaling.maxReplicas (eq $scaling.kind "none")) -}}
{{- if gt $most $partitions -}}
{{- fail (printf "stream: %d workers, but [kafka] partitions is %d in settings: a worker without a partition has nothing to do" $most $partitions) -}}
{{- end -}}
{{- if and (ne $scaling.kind "none") (gt (int $scaling.minReplicas) (int $scaling.maxReplicas)) -}}
{{- fail (printf "stream.scaling: minReplicas is %d and maxReplicas %d" (int $scaling.minReplicas) (int $scaling.maxReplicas)) -}}
{{- end -}}
{{- if dig "triton" "replicas" false $settings -}}
{{- fail "settings has [[triton.replicas]]: the chart writes them; set the value triton.replicas" -}}
{{- end -}}
{{- end -}}

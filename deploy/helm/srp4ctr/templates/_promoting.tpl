{{/*
A pod that may promote, of the trainer's image. Takes a dict: root, component, role (promoter
or ops, by which all servers know it), own (its values), more (of its environment), networks,
restartPolicy, command or args.
*/}}
{{- define "srp4ctr.promotingPod" -}}
{{- $root := .root -}}
metadata:
  labels: {{ include "srp4ctr.podLabels" (list $root .component .networks) | nindent 4 }}
  {{- with .own.podAnnotations }}
  annotations: {{ toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- include "srp4ctr.pod" (list $root .own (include "srp4ctr.ours" . | fromYaml)) | nindent 2 }}
  restartPolicy: {{ .restartPolicy }}
  terminationGracePeriodSeconds: 60 # a started promotion is rolled back
  containers:
    - name: {{ .component }}
      image: {{ include "srp4ctr.image" (list $root "trainer") }}
      imagePullPolicy: {{ $root.Values.images.pullPolicy }}
      {{- with .command }}
      command: {{ toJson . }}
      {{- end }}
      {{- with .args }}
      args: {{ toJson . }}
      {{- end }}
      env:
        {{- include "srp4ctr.env" (list (include "srp4ctr.settings" $root) (include "srp4ctr.store" $root) (include "srp4ctr.kafka" (list $root .role)) (include "srp4ctr.objects" (list $root .role)) (include "srp4ctr.asRedisUser" .role) (include "srp4ctr.asTritonClient" .role) "SRP4CTR_TRITON__CONTROL_KEY_FILE: /run/secrets/triton_control" (include "srp4ctr.onScratch" .) .more) | nindent 8 }}
      resources: {{ toYaml .own.resources | nindent 8 }}
      securityContext: {{ include "srp4ctr.containerSecurity" . | nindent 8 }}
      volumeMounts:
        {{- include "srp4ctr.mounts" . | nindent 8 }}
        - { name: data, mountPath: /data }
        - { name: models, mountPath: /models }
        - { name: served, mountPath: /served }
        - { name: spill, mountPath: /scratch }
  volumes:
    {{- $files := list (printf "%s.pem" .role) (printf "%s.key" .role) "triton_control" (printf "kafka_%s" .role) (printf "redis_%s" .role) (printf "objects_%s" .role) "postgres" }}
    {{- include "srp4ctr.secrets" (list $root (concat (include "srp4ctr.authorities" (list $root (list "kafka" "redis" "objects")) | fromJsonArray) $files)) | nindent 4 }}
    {{- include "srp4ctr.volumes" (list $root (list "data" "models" "served")) | nindent 4 }}
    {{- include "srp4ctr.ownDisk" (list $root "spill") | nindent 4 }}
{{- end -}}

{{- define "srp4ctr.onScratch" -}}
HOME: /scratch
TMPDIR: /scratch
{{- end -}}

{{/* A pod for operators' commands. Takes a dict: root, component, restartPolicy, command or args. */}}
{{- define "srp4ctr.opsPod" -}}
{{- $ops := .root.Values.ops -}}
{{- $known := dict "role" "ops" "own" $ops "more" (printf "SRP4CTR_AUDIT__ACTOR: %q\nSRP4CTR_INTAKE__HOST: %s-intake" $ops.actor (include "srp4ctr.fullname" .root)) "networks" (list "events" "features" "objects" "serving" "metrics") -}}
{{- include "srp4ctr.promotingPod" (merge $known .) -}}
{{- end -}}

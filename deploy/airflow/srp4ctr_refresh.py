"""The periodic refresh as an Airflow DAG: copy this file to the DAGs' folder.

``srp4ctr model refresh`` ends with status 0 if its model was promoted or there was nothing
new, 5 if a gate refused it, 2 for a mistyped command, and 1, 3 or 4 if it failed. A failed
refresh may be repeated: it resumes from its checkpoint. Its outcome is in ``refresh.json``
in the bundles' folder, and is the first task's XCom.

On Kubernetes the pod is the chart's own. Set its ``trainer.suspend: true`` (two schedules
would refresh twice), and let SRP4CTR_POD_TEMPLATE name a file that holds what this prints:

    kubectl get cronjob srp4ctr-trainer -o jsonpath='{.spec.jobTemplate.spec.template}'

Tested with Airflow 3.3.2.
"""

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowSkipException,
)

BUNDLES = "${SRP4CTR_TRAINING__BUNDLES_DIR:-.data/bundles}"
COMMAND = "srp4ctr model refresh"
# Status 5, a refusal, fails the next task, which names the gate.
ENDED = f"{{ {COMMAND} || [ $? -eq 5 ]; }}"
REPORTED = f'{ENDED} && tr -d "\\n" < {BUNDLES}/refresh.json'
# Airflow's sidecar reads a pod's XCom from there.
REPORTED_BY_A_POD = f"{ENDED} && cp {BUNDLES}/refresh.json /airflow/xcom/return.json"
REFRESH, GATES = "refresh", "gates"


def judge(status: Mapping[str, Any]) -> str:
    """Return the version that was promoted; fail where a gate refused it."""
    if status["error"]:  # stopped by SIGTERM: that ends with status 0, too
        raise AirflowException(f"the refresh was {status['error']}")
    failed = [name for name, passed in status["gates"].items() if not passed]
    if status["outcome"] == "refused":  # the serving bundle stays
        raise AirflowFailException(f"{status['version']} failed {', '.join(failed)}")
    if status["outcome"] != "promoted":
        raise AirflowSkipException(f"{status['version']}: {status['outcome']}")
    return str(status["version"])


def _refresh(dag: DAG) -> Any:
    """Return the task that refreshes: in the chart's pod, or here."""
    pod = os.environ.get("SRP4CTR_POD_TEMPLATE", "")
    if not pod:
        return BashOperator(
            task_id=REFRESH,
            dag=dag,
            bash_command=REPORTED,
            append_env=True,
            output_processor=json.loads,
        )
    from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator

    return KubernetesPodOperator(
        task_id=REFRESH,
        dag=dag,
        pod_template_file=pod,
        base_container_name="trainer",
        cmds=["bash", "-c"],
        arguments=[REPORTED_BY_A_POD],
        do_xcom_push=True,
    )


dag = DAG(
    dag_id="srp4ctr_refresh",
    schedule="0 * * * *",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=5)},
    render_template_as_native_obj=True,
    doc_md=__doc__,
)
refresh = _refresh(dag)
gates = PythonOperator(
    task_id=GATES, dag=dag, python_callable=judge, op_args=[refresh.output], retries=0
)

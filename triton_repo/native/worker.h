/* The threads that answer calls. */
#ifndef SRP4CTR_WORKER_H
#define SRP4CTR_WORKER_H

/* The thread of a Ranker that processes its calls, oldest first; once the ranker stops,
 * until the queue is empty. */
void *run_worker(void *ranker);

#endif

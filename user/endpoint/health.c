/* SPDX-License-Identifier: Apache-2.0
 * Passive health: what answers say about the pod that gave them.
 *
 * Only the pod's own failures count: an error of the client says nothing of the pod, neither ill nor well, and a full
 * queue says that it is busy, not broken.
 *
 *     well ── 5 failures in a row ──► out, 10 s ──time──► on trial ── 2xx ──► well
 *                                          ▲                  │
 *                                          └── 1 failure, twice as long (5 min at most)
 *
 * <fails> counts in a row and gives both: 5 ejects, each more doubles. While a pod is out nothing is sent to it, so
 * what still comes is from before and moves nothing: a hundred streams that break with one engine are one ejection, and
 * an old stream that ends well does not bring a dead pod back. The bit stays during the trial, only its time is over.
 *
 * Threads: any. Reads are atomic; changes are made under the pod's lock, as <fails> and the times belong together.
 */
#include "base/time.h"
#include "endpoint/endpoint_int.h"

#define EJECT_AFTER	 5
#define EJECT_S		 10
#define EJECT_S_MAX	 300
#define EJECT_DOUBLINGS	 5 /* 10 s << 5 is above the maximum */
#define BACKOFF_S_MAX	 60
#define DOWN_FOR_A_WHILE ((uint32_t)(POD_DOWN_EJECTED | POD_DOWN_BACKOFF))

uint32_t pod_down_now(const struct pod *p, uint64_t now_ns)
{
	uint32_t down = atomic_load_explicit(&p->down, memory_order_acquire);

	if ((down & POD_DOWN_EJECTED) && now_ns >= atomic_load_explicit(&p->eject_until, memory_order_relaxed))
		down &= ~(uint32_t)POD_DOWN_EJECTED;
	if ((down & POD_DOWN_BACKOFF) && now_ns >= atomic_load_explicit(&p->backoff_until, memory_order_relaxed))
		down &= ~(uint32_t)POD_DOWN_BACKOFF;
	return down;
}

bool pod_usable(const struct pod *p, uint64_t now_ns)
{
	return pod_weight(p) > 0 && pod_down_now(p, now_ns) == 0;
}

bool pod_last_resort(const struct pod *p, uint64_t now_ns)
{
	return pod_weight(p) > 0 && (pod_down_now(p, now_ns) & ~(uint32_t)POD_DOWN_BACKOFF) == 0;
}

void pod_set_down(struct pod *p, enum pod_down bit, bool on)
{
	if (on)
		atomic_fetch_or(&p->down, (uint32_t)bit);
	else
		atomic_fetch_and(&p->down, ~(uint32_t)bit);
}

static void failure(struct pod *p, uint64_t now_ns)
{
	uint64_t seconds;
	uint32_t fails;

	spin_lock(&p->ledger.lock);
	if (pod_down_now(p, now_ns) & POD_DOWN_EJECTED)
		goto unlock;
	fails = atomic_load(&p->fails) + 1;
	atomic_store(&p->fails, fails);
	if (fails < EJECT_AFTER)
		goto unlock;
	fails -= EJECT_AFTER;
	seconds = (uint64_t)EJECT_S << (fails < EJECT_DOUBLINGS ? fails : EJECT_DOUBLINGS);
	if (seconds > EJECT_S_MAX)
		seconds = EJECT_S_MAX;
	atomic_store(&p->eject_until, now_ns + seconds * NS_PER_S);
	atomic_fetch_add(&p->ejections, 1);
	pod_set_down(p, POD_DOWN_EJECTED, true);
unlock:
	spin_unlock(&p->ledger.lock);
}

static void success(struct pod *p, uint64_t now_ns)
{
	/* The usual case, without the lock. */
	if (!atomic_load_explicit(&p->fails, memory_order_relaxed) &&
	    !(atomic_load_explicit(&p->down, memory_order_relaxed) & DOWN_FOR_A_WHILE))
		return;
	spin_lock(&p->ledger.lock);
	if (!(pod_down_now(p, now_ns) & POD_DOWN_EJECTED)) {
		atomic_store(&p->fails, 0);
		pod_set_down(p, POD_DOWN_EJECTED, false);
	}
	if (!(pod_down_now(p, now_ns) & POD_DOWN_BACKOFF))
		pod_set_down(p, POD_DOWN_BACKOFF, false);
	spin_unlock(&p->ledger.lock);
}

static void busy(struct pod *p, uint32_t seconds, uint64_t now_ns)
{
	uint64_t until = now_ns + (seconds < BACKOFF_S_MAX ? seconds : BACKOFF_S_MAX) * NS_PER_S;

	if (!seconds)
		return;
	spin_lock(&p->ledger.lock);
	if (until > atomic_load(&p->backoff_until))
		atomic_store(&p->backoff_until, until);
	pod_set_down(p, POD_DOWN_BACKOFF, true);
	spin_unlock(&p->ledger.lock);
}

void pod_result(struct pod *p, enum pod_outcome o, uint32_t retry_after_s, uint64_t now_ns)
{
	switch (o) {
	case POD_OK:
		success(p, now_ns);
		break;
	case POD_CLIENT_ERROR:
		break;
	case POD_BUSY:
		busy(p, retry_after_s, now_ns);
		break;
	case POD_GARBAGE:
		atomic_fetch_add_explicit(&p->garbage, 1, memory_order_relaxed);
		failure(p, now_ns);
		break;
	case POD_SERVER_ERROR:
	case POD_CONNECT_FAILED:
	case POD_CUT:
		failure(p, now_ns);
		break;
	}
}

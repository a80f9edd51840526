/* SPDX-License-Identifier: Apache-2.0
 * Quiescent-state based reclamation: readers follow pointers without a lock, a writer that has unlinked something
 * waits until no reader can still hold it.
 *
 *   reader                          writer
 *   qsbr_enter(q, id)               unlink the object (atomic store)
 *   load pointers, use objects      e = qsbr_retire(q)
 *   qsbr_leave(q, id)               … later: if (qsbr_passed(q, e)) free the object
 *
 * Threads: each reader id belongs to one thread, sections do not nest. Any thread may retire. A reader outside of a
 * section (asleep in epoll_wait, say) holds nothing up.
 */
#ifndef KVS_BASE_QSBR_H
#define KVS_BASE_QSBR_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define QSBR_READERS 64

struct qsbr {
	_Atomic uint64_t epoch; /* starts at 1 */
	unsigned nreaders;	/* ids 0 … nreaders-1; set before the first reader runs */
	struct {
		_Alignas(64) _Atomic uint64_t seen; /* 0: outside */
	} reader[QSBR_READERS];
};

static inline void qsbr_init(struct qsbr *q, unsigned nreaders)
{
	atomic_store(&q->epoch, 1);
	q->nreaders = nreaders;
	for (unsigned i = 0; i < QSBR_READERS; i++)
		atomic_store(&q->reader[i].seen, 0);
}

static inline void qsbr_enter(struct qsbr *q, unsigned id)
{
	atomic_store(&q->reader[id].seen, atomic_load(&q->epoch));
}

static inline void qsbr_leave(struct qsbr *q, unsigned id)
{
	atomic_store_explicit(&q->reader[id].seen, 0, memory_order_release);
}

/* Call after unlinking; what was unlinked before may be freed once qsbr_passed(q, the returned value). */
static inline uint64_t qsbr_retire(struct qsbr *q)
{
	return atomic_fetch_add(&q->epoch, 1);
}

static inline bool qsbr_passed(struct qsbr *q, uint64_t epoch)
{
	for (unsigned i = 0; i < q->nreaders; i++) {
		uint64_t seen = atomic_load(&q->reader[i].seen);

		if (seen && seen <= epoch)
			return false;
	}
	return true;
}

#endif

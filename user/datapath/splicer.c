/* SPDX-License-Identifier: Apache-2.0
 * Everything about splices that lives as long as a datapath: made once the programs are loaded.
 *
 * Ids that are not free at the start are a former daemon's, or one's that lives: they begin in limbo.
 */
#include <bpf/bpf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/rand.h"
#include "datapath/splice_int.h"

#define SCAN_BATCH 256

static int ids_scan(struct splicer *sp)
{
	struct kvs_splice *v = calloc(SCAN_BATCH, sizeof(*v));
	uint32_t keys[SCAN_BATCH], n, at, next, free_id;
	bool first = true;
	int r = 0;

	if (!v)
		return -ENOMEM;
	for (uint32_t i = 0; i < sp->nids; i++)
		atomic_store_explicit(&sp->state[i], ID_LIMBO, memory_order_relaxed);
	do {
		n = SCAN_BATCH;
		r = bpf_map_lookup_batch(sp->map[MAP_splices], first ? NULL : &at, &next, keys, v, &n, NULL);
		r = r < 0 ? -errno : 0;
		for (uint32_t i = 0; (!r || r == -ENOENT) && i < n; i++)
			if (v[i].state == KVS_FREE && keys[i] && keys[i] < sp->nids)
				atomic_store_explicit(&sp->state[keys[i]], ID_POOL, memory_order_relaxed);
		first = false;
		at = next;
	} while (!r);
	free(v);
	if (r != -ENOENT) /* that is the end */
		return r;
	atomic_store_explicit(&sp->state[0], ID_LENT, memory_order_relaxed); /* splice 0 does not exist */
	for (free_id = sp->nids - 1; free_id > 0; free_id--) {
		if (atomic_load_explicit(&sp->state[free_id], memory_order_relaxed) == ID_POOL)
			ids_give(&sp->ids, &free_id, 1);
		else
			atomic_fetch_add_explicit(&sp->orphans, 1, memory_order_relaxed);
	}
	return 0;
}

static int splicer_init(struct splicer *sp, struct datapath *dp)
{
	struct bpf_map_info info = { 0 };
	uint32_t len = sizeof(info);
	int r;

	sp->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	sp->diag_fd = diag_open();
	if (sp->wake_fd < 0 || sp->diag_fd < 0 || bpf_obj_get_info_by_fd(sp->map[MAP_splices], &info, &len) < 0)
		return -errno;
	sp->nids = info.max_entries;
	sp->slots = calloc(sp->nids, sizeof(*sp->slots));
	sp->state = calloc(sp->nids, sizeof(*sp->state));
	if (!sp->slots || !sp->state || ids_init(&sp->ids, sp->nids))
		return -ENOMEM;
	r = ids_scan(sp);
	r = r ? r : gc_start(sp);
	return r ? r : service_start(sp);
}

struct splicer *splicer_new(struct datapath *dp)
{
	struct splicer *sp = calloc(1, sizeof(*sp));
	int r;

	if (!sp)
		return NULL;
	sp->dp = dp;
	sp->owner = dp->owner;
	memcpy(sp->map, dp->map, sizeof(sp->map));
	for (unsigned i = 0; i < CALLS; i++)
		sp->call[i] = dp->progs.fd[HOOKS + i];
	sp->stall = dp->stall ? dp->stall : STALL_NS;
	sp->orphan = dp->orphan ? dp->orphan : ORPHAN_NS;
	sp->retain = dp->retain ? dp->retain : KVS_RETAIN_SEC * NS_PER_S;
	sp->ring_fd = sp->wake_fd = sp->diag_fd = -1;
	atomic_store(&sp->gen, (uint32_t)rand_secret());
	pthread_mutex_init(&sp->ids_lock, NULL);
	pthread_mutex_init(&sp->strangers_lock, NULL);
	pthread_mutex_init(&sp->used_lock, NULL);
	r = splicer_init(sp, dp);
	if (r) {
		why_set(dp->why, r, "cannot take over the splices: %s", strerror(-r));
		splicer_free(sp);
		errno = -r;
		return NULL;
	}
	return sp;
}

void splicer_free(struct splicer *sp)
{
	if (!sp)
		return;
	service_stop(sp);
	gc_stop(sp);
	if (sp->wake_fd >= 0)
		close(sp->wake_fd);
	if (sp->diag_fd >= 0)
		close(sp->diag_fd);
	ids_free(&sp->ids);
	free(sp->slots);
	free((void *)sp->state);
	pthread_mutex_destroy(&sp->ids_lock);
	pthread_mutex_destroy(&sp->strangers_lock);
	pthread_mutex_destroy(&sp->used_lock);
	free(sp);
}

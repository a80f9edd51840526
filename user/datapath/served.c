/* SPDX-License-Identifier: Apache-2.0
 * What the control thread and the workers tell each other about devices: by which a connection may be spliced, and by
 * which clients come that TC did not see.
 */
#include <bpf/bpf.h>
#include <errno.h>
#include <string.h>

#include "datapath/splice_int.h"

enum carrier_why served_why(struct splicer *sp, uint32_t ifindex)
{
	for (unsigned i = 0; i < SERVED_MAX; i++)
		if (atomic_load_explicit(&sp->served[i].ifindex, memory_order_acquire) == ifindex)
			return (enum carrier_why)atomic_load_explicit(&sp->served[i].why, memory_order_relaxed);
	return CARRIER_WHY_NO_DEVICE;
}

void served_set(struct splicer *sp, uint32_t ifindex, enum carrier_why why)
{
	struct served *room = NULL;

	for (unsigned i = 0; i < SERVED_MAX; i++) {
		uint32_t at = atomic_load_explicit(&sp->served[i].ifindex, memory_order_relaxed);

		if (at == ifindex) {
			atomic_store_explicit(&sp->served[i].why, (uint8_t)why, memory_order_relaxed);
			return;
		}
		if (!at && !room)
			room = &sp->served[i];
	}
	if (!room)
		return; /* more devices than that: connections by it are relayed as by no device */
	atomic_store_explicit(&room->why, (uint8_t)why, memory_order_relaxed);
	atomic_store_explicit(&room->ifindex, ifindex, memory_order_release);
}

void served_drop(struct splicer *sp, uint32_t ifindex)
{
	for (unsigned i = 0; i < SERVED_MAX; i++)
		if (atomic_load_explicit(&sp->served[i].ifindex, memory_order_relaxed) == ifindex)
			atomic_store_explicit(&sp->served[i].ifindex, 0, memory_order_release);
}

void stranger_add(struct splicer *sp, const struct kvs_addr *addr)
{
	struct kvs_pod_key k = { .addr = *addr };
	bool known = false;

	if (pthread_mutex_trylock(&sp->strangers_lock))
		return; /* the next one will do */
	for (unsigned i = 0; i < sp->nstrangers; i++)
		known |= memcmp(&sp->strangers[i], &k, sizeof(k)) == 0;
	if (!known && sp->nstrangers < STRANGERS)
		sp->strangers[sp->nstrangers++] = k;
	pthread_mutex_unlock(&sp->strangers_lock);
}

unsigned strangers_take(struct splicer *sp, struct kvs_pod_key ret[STRANGERS])
{
	unsigned n;

	pthread_mutex_lock(&sp->strangers_lock);
	n = sp->nstrangers;
	memcpy(ret, sp->strangers, n * sizeof(*ret));
	sp->nstrangers = 0;
	pthread_mutex_unlock(&sp->strangers_lock);
	return n;
}

bool device_used(struct splicer *sp, uint32_t ifindex)
{
	struct kvs_tuple t;
	bool used;

	if (bpf_map_get_next_key(sp->map[MAP_conns], NULL, &t) < 0)
		return false;
	pthread_mutex_lock(&sp->used_lock);
	used = !sp->used_known;
	for (unsigned i = 0; i < sp->nused; i++)
		used |= sp->used[i] == ifindex;
	pthread_mutex_unlock(&sp->used_lock);
	return used;
}

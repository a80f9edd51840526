/* SPDX-License-Identifier: Apache-2.0
 * Who exists: static lists, a watched file, DNS. A source gives the complete set each time it has changed.
 *
 * Threads: callbacks come on the loop's thread; DNS is resolved on a thread of its own and posted.
 * A source that fails keeps its last set and says so: what is known is never dropped because a name server is away.
 */
#ifndef KVS_DISCOVERY_DISCOVERY_H
#define KVS_DISCOVERY_DISCOVERY_H

#include "config/config.h"
#include "endpoint/endpoint.h"
#include "loop/loop.h"

struct discovery;

struct discovery_sink {
	/* The set of <pool> is now <specs>. */
	void (*set)(void *arg, unsigned pool, const char *source, const struct pod_spec *specs, unsigned n);
	/* The source has a problem (one line), or none any more (NULL). */
	void (*problem)(void *arg, unsigned pool, const char *source, const char *why);
	void *arg;
};

/* Start the source of each pool. Static sets are delivered before it returns, other sources' as they come. NULL and
 * errno. <cfg> must outlive it. */
struct discovery *discovery_start(struct loop *l, const struct config *cfg, struct discovery_sink sink);
void discovery_stop(struct discovery *d);

/* "HOST:PORT" with a literal address or a name (looked up now, blocking) and the rest of <p>. 0; -EINVAL or a negative
 * errno with one line in <err>. */
int discovery_spec(const struct config_pod *p, struct pod_spec *ret, char *err, size_t err_len);

#endif

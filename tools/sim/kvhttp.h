/* SPDX-License-Identifier: Apache-2.0
 * KV events as TensorRT-LLM's server hands them out: /kv_cache_events answers with what has happened since the last
 * question and forgets it.
 */
#ifndef SIM_KVHTTP_H
#define SIM_KVHTTP_H

#include "base/buf.h"
#include "cache.h"
#include "opts.h"

struct kvhttp;

struct kvhttp *kvhttp_new(const struct opts *o); /* NULL: no memory */
void kvhttp_free(struct kvhttp *h);
struct kv_sink *kvhttp_sink(struct kvhttp *h);
int kvhttp_drain(struct kvhttp *h, struct buf *out); /* 0 or -ENOMEM */

#endif

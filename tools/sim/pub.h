/* SPDX-License-Identifier: Apache-2.0
 * KV events over ZeroMQ as vLLM sends them: PUB with [topic, sequence, batch], ROUTER for replay. One batch per step.
 *
 * Threads: the loop's. Sends never block: where a subscriber's queue is full, ZeroMQ drops for that subscriber.
 */
#ifndef SIM_PUB_H
#define SIM_PUB_H

#include "cache.h"
#include "loop/loop.h"
#include "opts.h"

struct pub;

/* <o> is read at each batch: the formats may change. <rank> is added to the ports. NULL and a line in <err>. */
struct pub *pub_new(struct loop *l, void *zmq, const struct opts *o, const char *host, uint16_t port, uint32_t rank,
		    char *err, size_t err_len);
void pub_free(struct pub *p);
struct kv_sink *pub_sink(struct pub *p);
void pub_step(struct pub *p); /* send what has gathered */
const char *pub_endpoint(const struct pub *p);
const char *pub_replay_endpoint(const struct pub *p); /* NULL: none */
const char *pub_topic(const struct pub *p);

#endif

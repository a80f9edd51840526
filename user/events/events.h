/* SPDX-License-Identifier: Apache-2.0
 * What is cached where: KV events of the engines, over ZeroMQ or (TensorRT-LLM) HTTP, decoded and put into the index.
 * This module's thread is the index's one writer; speculation by the workers reaches it as posts.
 *
 * Formats and their variants: docs/internals/events.md.
 */
#ifndef KVS_EVENTS_EVENTS_H
#define KVS_EVENTS_EVENTS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"
#include "base/time.h"
#include "endpoint/endpoint.h"
#include "kvindex/kvindex.h"
#include "model/vocab.h"
#include "stats/stats.h"

struct events;

/* An index that an earlier process has kept. */
struct index_file;

/* Checked whole: length, version, sums. NULL and errno (ENOENT: there is none); <why> names file and reason. The index
 * that it is to be loaded into is made with <ret> (index_new_with). ret_written: seconds since 1970. */
struct index_file *index_file_open(const char *path, struct index_secrets *ret, int64_t *ret_written, char *why,
				   size_t n);
void index_file_close(struct index_file *f);

struct events_keep {
	const char *path;	 /* copied; replaced by renaming */
	struct index_file *from; /* NULL: begin with nothing. Taken over */
	uint64_t every_ns;	 /* it is written so often while events come, and at the end */
	uint64_t stale_ns;	 /* what no engine has proved by then goes */
};

/* Starts the thread. <st> is its own shard. <keep>: NULL: nothing is kept on disk. NULL and errno; keep->from is the
 * caller's then. */
struct events *events_start(struct kvindex *x, struct stats *st, const struct events_keep *keep);
void events_stop(struct events *e);
/* Before the first pod of <pool> is added: the key for its pods' HTTP. <file> (NULL: none) lives as long as <e>. 0 or
 * -ENOMEM. */
int events_key_file(struct events *e, unsigned pool, const char *file);

/* Control thread. Follow a pod's events (spec.events, spec.replay; one subscription per rank). Where spec.events is an
 * http:// URL they are polled there: the answer empties the engine's buffer, so it is not asked before events_rebase
 * has told the name for sure, or 10 s are over. <v> may be NULL: events
 * are counted and ignored, the pod stays approximate. <base> (copied) names the namespace of what is not a LoRA
 * adapter's; it must be the string that the request side uses: pod->model_root, else the first of pod->models, else "".
 * Takes references; asynchronous. When the spec or the vocabulary changes: remove and add. */
int events_add(struct events *e, struct pod *p, struct vocab *v, const char *base);
/* The base name has become known or has changed: what was indexed under the old one is cleared and, where the engine
 * has a replay socket, asked for again. Nothing happens when it is the same. */
int events_rebase(struct events *e, struct pod *p, const char *base);
/* The pod has gone: unsubscribe, clear its holders. */
int events_remove(struct events *e, struct pod *p);
/* Outside evidence that the cache is new or gone (restart seen in metrics, sleep): clear its holders. */
int events_invalidate(struct events *e, struct pod *p, const char *why);

/* What its events tell is not all that it has, or not what it has (<on>), so what is sent to it counts too, as for a
 * pod without events. */
int events_doubt(struct events *e, struct pod *p, bool on);

#define EVENTS_GUESS_LIFE (2 * NS_PER_S) /* by then events have confirmed a guess that was right */

/* Speculation by workers, any thread; all of it is copied. <drop>: undo an earlier guess. In the order of calls by one
 * thread. */
int events_guess(struct events *e, const struct index_guess *g, bool drop);

/* --- pure part: decoding --- */

#define KV_EXTRA_MAX 32

enum kv_type { KV_STORED, KV_REMOVED, KV_CLEARED, KV_UNKNOWN };

struct kv_event {
	enum kv_type type;
	unsigned nhashes;
	const uint64_t *hashes;
	bool has_parent;
	uint64_t parent;
	unsigned ntokens;
	const uint32_t *tokens;
	uint32_t block_size;
	struct str medium, lora_name, locality, kind; /* {NULL, 0}: absent */
	bool has_group;
	int64_t group;
	int64_t lora_id; /* 0: none. Old engines say this only, and no name */
	/* Strings that belong to the namespace besides the LoRA name: cache_salt, media keys, of all blocks in order,
	 * without what repeats itself or continues from an earlier block. extra_at: the block that each came with. */
	unsigned nextra;
	struct str extra[KV_EXTRA_MAX];
	uint32_t extra_at[KV_EXTRA_MAX];
	struct str salt; /* a field of its own (SGLang); belongs to the whole chain */
	uint32_t window; /* attention window of the cache it is in; 0: not told. The largest is the whole prefix */
	bool everywhere; /* KV_REMOVED: from every medium, however often it was stored */
};

struct kv_batch_info {
	double ts;
	int64_t rank;			     /* -1: nil or absent */
	unsigned bad_events, unknown_events; /* both skipped */
	unsigned partial_blocks;	     /* left out: only full ones are told */
};

/* Decode one payload (frame 3). Calls <event> for each event in order; pointers live during the call. 0; -EBADMSG for a
 * batch that is none or is cut off, without a call; -ENOMEM. Bad events are counted in <info> and skipped. Work and
 * memory are linear in <len>, whatever it holds. A KV_STORED without tokens is about known blocks' location only.
 * ntokens is nhashes * block_size, except in events of cache groups, which the reader may have to leave out. */
int kv_decode(const void *payload, size_t len, struct kv_batch_info *info,
	      void (*event)(void *arg, const struct kv_event *e), void *arg);

/* TensorRT-LLM's JSON. An answer: calls <one> for each event with its number, its data-parallel rank and its text, in
 * order. 0; -EBADMSG for what is no list or is cut off, without a call. <ret_bad>: elements that are no events. */
int trt_poll(struct str body, void (*one)(void *arg, uint64_t id, uint64_t rank, struct str text), void *arg,
	     unsigned *ret_bad);
/* One event's text into at most a few calls of <event>: as kv_decode. <st> is the stream's, zeroed at first. */
struct trt_state {
	uint32_t block; /* tokens of a full block, as far as seen */
};
int trt_decode(struct trt_state *st, struct str text, struct kv_batch_info *info,
	       void (*event)(void *arg, const struct kv_event *e), void *arg);

#endif

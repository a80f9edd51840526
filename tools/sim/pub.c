/* SPDX-License-Identifier: Apache-2.0 */
#include "pub.h"

#include <errno.h>
#include <msgpack.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#include "base/buf.h"
#include "base/time.h"

#define ENDPOINT_MAX 256

struct batch {
	void *p;
	size_t n;
};

struct pub {
	struct kv_sink sink;
	const struct opts *o;
	struct loop *loop;
	void *pub, *router;
	struct loop_fd router_fd;
	char endpoint[ENDPOINT_MAX], replay[ENDPOINT_MAX], topic[512];
	msgpack_sbuffer events; /* of the step so far */
	uint32_t nevents;
	uint64_t seq; /* of the next batch */
	struct batch *ring;
};

static struct pub *pub_of(struct kv_sink *s)
{
	return container_of(s, struct pub, sink);
}

static void put_str(msgpack_packer *k, const char *s, size_t n)
{
	msgpack_pack_str(k, n);
	msgpack_pack_str_body(k, s, n);
}

/* The next field's key, where events are maps. */
static void key(const struct pub *p, msgpack_packer *k, const char *name)
{
	if (*p->o->event_format == 'm')
		put_str(k, name, strlen(name));
}

static void open_event(const struct pub *p, msgpack_packer *k, const char *tag, unsigned map_fields,
		       unsigned array_fields)
{
	if (*p->o->event_format == 'm')
		msgpack_pack_map(k, 1 + map_fields);
	else
		msgpack_pack_array(k, 1 + array_fields);
	key(p, k, "type");
	put_str(k, tag, strlen(tag));
}

static void put_hash(const struct pub *p, msgpack_packer *k, const struct digest *d)
{
	if (*p->o->hash_format == 'i') {
		msgpack_pack_uint64(k, digest_id(d));
		return;
	}
	msgpack_pack_bin(k, sizeof(d->b));
	msgpack_pack_bin_body(k, d->b, sizeof(d->b));
}

static void put_extra_keys(msgpack_packer *k, const struct kv_stored *e)
{
	msgpack_pack_array(k, e->n);
	for (uint32_t i = 0; i < e->n; i++) {
		bool salt = i == 0 && e->salt.p;

		if (!e->lora.p && !salt) {
			msgpack_pack_nil(k);
			continue;
		}
		msgpack_pack_array(k, (e->lora.p ? 1 : 0) + (salt ? 1 : 0));
		if (e->lora.p)
			put_str(k, e->lora.p, e->lora.n);
		if (salt)
			put_str(k, e->salt.p, e->salt.n);
	}
}

static unsigned lora_id(const struct pub *p, struct str name)
{
	for (unsigned i = 0; i < p->o->nlora; i++)
		if (str_eq(str_of(p->o->lora[i].name), name))
			return i + 1;
	return p->o->nlora + 1;
}

static void stored(struct kv_sink *s, const struct kv_stored *e)
{
	struct pub *p = pub_of(s);
	uint32_t whole = p->o->block_size, told = p->o->event_block;
	msgpack_packer k;

	if (p->o->mute_stored)
		return;
	if (!told || told > whole)
		told = whole;

	msgpack_packer_init(&k, &p->events, msgpack_sbuffer_write);
	open_event(p, &k, "BlockStored", 10, 11);
	key(p, &k, "block_hashes");
	msgpack_pack_array(&k, e->n);
	for (uint32_t i = 0; i < e->n; i++)
		put_hash(p, &k, &e->hashes[i]);
	key(p, &k, "parent_block_hash");
	if (e->parent)
		put_hash(p, &k, e->parent);
	else
		msgpack_pack_nil(&k);
	key(p, &k, "token_ids");
	msgpack_pack_array(&k, e->n * told);
	for (uint32_t i = 0; i < e->n * told; i++)
		msgpack_pack_uint32(&k, e->tokens[i / told * whole + i % told]);
	key(p, &k, "block_size");
	msgpack_pack_uint32(&k, told);
	key(p, &k, "lora_id");
	if (e->lora.p)
		msgpack_pack_uint32(&k, lora_id(p, e->lora));
	else
		msgpack_pack_nil(&k);
	key(p, &k, "medium");
	put_str(&k, "GPU", 3);
	key(p, &k, "lora_name");
	if (e->lora.p)
		put_str(&k, e->lora.p, e->lora.n);
	else
		msgpack_pack_nil(&k);
	key(p, &k, "extra_keys");
	put_extra_keys(&k, e);
	key(p, &k, "group_idx");
	msgpack_pack_uint8(&k, 0);
	key(p, &k, "kv_cache_spec_kind");
	put_str(&k, "full_attention", 14);
	if (*p->o->event_format == 'a') /* kv_cache_spec_sliding_window: maps leave it out */
		msgpack_pack_nil(&k);
	p->nevents++;
}

/* As vLLM's offloading connector tells it: hashes and a medium, nothing else. */
static void copied(struct kv_sink *s, const struct digest *d)
{
	struct pub *p = pub_of(s);
	msgpack_packer k;

	msgpack_packer_init(&k, &p->events, msgpack_sbuffer_write);
	open_event(p, &k, "BlockStored", 7, 7);
	key(p, &k, "block_hashes");
	msgpack_pack_array(&k, 1);
	put_hash(p, &k, d);
	key(p, &k, "parent_block_hash");
	msgpack_pack_nil(&k);
	key(p, &k, "token_ids");
	msgpack_pack_array(&k, 0);
	key(p, &k, "block_size");
	msgpack_pack_uint32(&k, 0);
	key(p, &k, "lora_id");
	msgpack_pack_nil(&k);
	key(p, &k, "medium");
	put_str(&k, "CPU", 3);
	key(p, &k, "lora_name");
	msgpack_pack_nil(&k);
	p->nevents++;
}

static void removed(struct kv_sink *s, const struct digest *d, bool below)
{
	struct pub *p = pub_of(s);
	msgpack_packer k;

	if (p->o->mute_removed)
		return;
	msgpack_packer_init(&k, &p->events, msgpack_sbuffer_write);
	open_event(p, &k, "BlockRemoved", 3, 3);
	key(p, &k, "block_hashes");
	msgpack_pack_array(&k, 1);
	put_hash(p, &k, d);
	key(p, &k, "medium");
	put_str(&k, below ? "CPU" : "GPU", 3);
	key(p, &k, "group_idx");
	msgpack_pack_uint8(&k, 0);
	p->nevents++;
}

static void cleared(struct kv_sink *s)
{
	struct pub *p = pub_of(s);
	msgpack_packer k;

	msgpack_packer_init(&k, &p->events, msgpack_sbuffer_write);
	open_event(p, &k, "AllBlocksCleared", 0, 0);
	p->nevents++;
}

static void be64(uint8_t out[8], uint64_t v)
{
	for (int i = 0; i < 8; i++)
		out[i] = (uint8_t)(v >> (56 - 8 * i));
}

static int send_part(void *sock, const void *p, size_t n, bool more)
{
	return zmq_send(sock, p, n, ZMQ_DONTWAIT | (more ? ZMQ_SNDMORE : 0)) < 0 ? -errno : 0;
}

void pub_step(struct pub *p)
{
	struct batch *slot;
	msgpack_sbuffer out;
	msgpack_packer k;
	uint8_t seq[8];

	if (!p->nevents)
		return;
	msgpack_sbuffer_init(&out);
	msgpack_packer_init(&k, &out, msgpack_sbuffer_write);
	msgpack_pack_array(&k, 3);
	msgpack_pack_double(&k, (double)time_wall() * 1e-9);
	msgpack_pack_array(&k, p->nevents);
	msgpack_sbuffer_write(&out, p->events.data, p->events.size);
	msgpack_pack_uint8(&k, 0); /* data_parallel_rank */
	msgpack_sbuffer_clear(&p->events);
	p->nevents = 0;

	be64(seq, p->seq);
	if (!send_part(p->pub, p->topic, strlen(p->topic), true) && !send_part(p->pub, seq, sizeof(seq), true))
		send_part(p->pub, out.data, out.size, false);
	if (!p->ring) {
		msgpack_sbuffer_destroy(&out);
	} else {
		slot = &p->ring[p->seq % p->o->replay_size];
		free(slot->p);
		*slot = (struct batch){ out.data, out.size };
	}
	p->seq++;
}

/* One frame of a reply behind the identity; END has nothing but its sequence number. */
static void reply(struct pub *p, const void *id, size_t id_len, uint64_t seq, const struct batch *b)
{
	uint8_t num[8];
	int r;

	be64(num, seq);
	r = send_part(p->router, id, id_len, true);
	r = r ? r : send_part(p->router, "", 0, true);
	if (*p->o->replay_framing == 'n')
		r = r ? r : send_part(p->router, p->topic, b ? strlen(p->topic) : 0, true);
	r = r ? r : send_part(p->router, num, sizeof(num), true);
	if (!r)
		send_part(p->router, b ? b->p : "", b ? b->n : 0, false);
}

static void replay_from(struct pub *p, const void *id, size_t id_len, uint64_t from)
{
	uint64_t first = p->seq > p->o->replay_size ? p->seq - p->o->replay_size : 0;

	for (uint64_t s = from > first ? from : first; s < p->seq; s++)
		reply(p, id, id_len, s, &p->ring[s % p->o->replay_size]);
	reply(p, id, id_len, UINT64_MAX, NULL);
}

/* One request, whatever its frames. False: there is none. */
static bool replay_one(struct pub *p)
{
	char frame[3][256];
	size_t len[3] = { 0 };
	unsigned n = 0;
	int more = 1;
	size_t more_len = sizeof(more);

	while (more) {
		char rest[1];
		int got = zmq_recv(p->router, n < 3 ? frame[n] : rest, n < 3 ? sizeof(frame[n]) : 0, ZMQ_DONTWAIT);

		if (got < 0)
			return false;
		if (n < 3)
			len[n] = (size_t)got;
		n++;
		zmq_getsockopt(p->router, ZMQ_RCVMORE, &more, &more_len);
	}
	if (n == 3 && len[0] <= sizeof(frame[0]) && len[1] == 0 && len[2] == 8) {
		uint64_t from = 0;

		for (int i = 0; i < 8; i++)
			from = from << 8 | (uint8_t)frame[2][i];
		replay_from(p, frame[0], len[0], from);
	}
	return true;
}

/* ZMQ_FD is edge-like: it must be emptied, and looked at again after each send. */
static void router_ready(struct loop_fd *f, uint32_t events)
{
	struct pub *p = container_of(f, struct pub, router_fd);
	int have;
	size_t n = sizeof(have);

	while (!zmq_getsockopt(p->router, ZMQ_EVENTS, &have, &n) && have & ZMQ_POLLIN)
		if (!replay_one(p))
			break;
}

/* "%h" the pod's address, "%p" its port, "%m" the model. */
static void expand(char *out, size_t cap, const char *s, const char *host, uint16_t port, const char *model)
{
	size_t n = 0;

	out[0] = 0;
	for (; *s && n + 1 < cap; s++) {
		char num[8];
		const char *put = NULL;

		if (*s == '%' && s[1] && strchr("hpm", s[1])) {
			snprintf(num, sizeof(num), "%u", port);
			s++;
			put = *s == 'h' ? host : *s == 'p' ? num : model;
			n += (size_t)snprintf(out + n, cap - n, "%s", put);
			continue;
		}
		out[n++] = *s;
		out[n] = 0;
	}
}

/* The endpoint's port moves by <add>, if it is a number. */
static void move_port(char *endpoint, uint32_t add)
{
	char *colon = strrchr(endpoint, ':'), *end;
	unsigned long port;

	if (!add || strncmp(endpoint, "tcp://", 6) != 0 || !colon)
		return;
	port = strtoul(colon + 1, &end, 10);
	if (end != colon + 1 && !*end)
		snprintf(colon + 1, 8, "%lu", (port + add) & 0xffff);
}

static int open_socket(struct pub *p, void **ret, void *zmq, int type, char *endpoint, bool bind)
{
	int hwm = (int)p->o->hwm, linger = 0;
	size_t n = ENDPOINT_MAX;

	*ret = zmq_socket(zmq, type);
	if (!*ret)
		return -errno;
	zmq_setsockopt(*ret, ZMQ_LINGER, &linger, sizeof(linger));
	if (type == ZMQ_ROUTER)
		hwm = 0; /* a replay is never dropped half-way */
	zmq_setsockopt(*ret, ZMQ_SNDHWM, &hwm, sizeof(hwm));
	if (bind ? zmq_bind(*ret, endpoint) : zmq_connect(*ret, endpoint))
		return -errno;
	if (bind)
		zmq_getsockopt(*ret, ZMQ_LAST_ENDPOINT, endpoint, &n);
	return 0;
}

struct pub *pub_new(struct loop *l, void *zmq, const struct opts *o, const char *host, uint16_t port, uint32_t rank,
		    char *err, size_t err_len)
{
	struct pub *p = calloc(1, sizeof(*p));
	const char *what = o->zmq_endpoint;
	size_t n = sizeof(int);
	bool bind;
	int r, fd;

	if (!p)
		return NULL;
	p->sink = (struct kv_sink){ stored, copied, removed, cleared };
	p->o = o;
	p->loop = l;
	p->router_fd.fd = -1;
	msgpack_sbuffer_init(&p->events);
	expand(p->topic, sizeof(p->topic), o->topic, host, port, o->model);
	expand(p->endpoint, sizeof(p->endpoint), o->zmq_endpoint, host, port, "");
	move_port(p->endpoint, rank * o->zmq_stride);
	bind = o->zmq_bind || strchr(p->endpoint, '*') || strstr(p->endpoint, "::") ||
	       !strncmp(p->endpoint, "ipc://", 6) || !strncmp(p->endpoint, "inproc://", 9);
	r = open_socket(p, &p->pub, zmq, ZMQ_PUB, p->endpoint, bind);
	if (r)
		goto fail;
	if (o->replay_endpoint && *o->replay_endpoint) {
		what = o->replay_endpoint;
		expand(p->replay, sizeof(p->replay), o->replay_endpoint, host, port, "");
		move_port(p->replay, rank * o->zmq_stride);
		p->ring = calloc(o->replay_size ? o->replay_size : 1, sizeof(*p->ring));
		r = p->ring ? open_socket(p, &p->router, zmq, ZMQ_ROUTER, p->replay, true) : -ENOMEM;
		if (r)
			goto fail;
		zmq_getsockopt(p->router, ZMQ_FD, &fd, &n);
		p->router_fd.ready = router_ready;
		r = loop_fd_add(l, &p->router_fd, fd, EPOLLIN);
		if (r)
			goto fail;
		router_ready(&p->router_fd, 0);
	}
	return p;
fail:
	snprintf(err, err_len, "%s: %s", what, zmq_strerror(-r));
	pub_free(p);
	return NULL;
}

void pub_free(struct pub *p)
{
	if (!p)
		return;
	loop_fd_del(&p->router_fd);
	if (p->pub)
		zmq_close(p->pub);
	if (p->router)
		zmq_close(p->router);
	for (uint32_t i = 0; p->ring && i < p->o->replay_size; i++)
		free(p->ring[i].p);
	free(p->ring);
	msgpack_sbuffer_destroy(&p->events);
	free(p);
}

struct kv_sink *pub_sink(struct pub *p)
{
	return &p->sink;
}

const char *pub_endpoint(const struct pub *p)
{
	return p->endpoint;
}

const char *pub_replay_endpoint(const struct pub *p)
{
	return p->router ? p->replay : NULL;
}

const char *pub_topic(const struct pub *p)
{
	return p->topic;
}

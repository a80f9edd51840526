/* SPDX-License-Identifier: Apache-2.0
 * `kvsteer flow list | show | kill`: splices, as the maps have them. The daemon uses the same for its own answers;
 * without one, the pins are enough.
 */
#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "datapath/splice_int.h"

#define BATCH 256

static const char *const states[KVS_STATES_N] = {
#define X(NAME, name) [KVS_##NAME] = #name,
	KVS_STATES(X)
#undef X
};

static const char *const framings[] = {
	[KVS_UNTIL_CLOSE] = "close", [KVS_LENGTH] = "length", [KVS_CHUNKED] = "chunked"
};

/* Descriptor of kvs_splices, to be closed. */
static int splices_open(struct buf *err)
{
	int fd;

	pins_listen();
	fd = pins_map(PIN_DIR, "kvs_splices");
	if (fd == -ENOENT)
		buf_printf(err, "no splices are pinned under %s: no kvsteerd with datapath.mode auto or tc has run\n",
			   PIN_DIR);
	else if (fd < 0)
		buf_printf(err, "cannot open %s/maps/kvs_splices: %s\n", PIN_DIR, strerror(-fd));
	return fd;
}

static void write_end(struct jw *w, const char *key, const struct kvs_addr *a, uint16_t port)
{
	struct kvs_pod_key k = { .addr = *a, .port = port };
	char name[NET_NAME_MAX];

	key_format(&k, name);
	jw_kstr(w, key, name);
}

static double since(uint64_t at, uint64_t now)
{
	return at && now > at ? (double)(now - at) / 1e9 : 0;
}

static const char *owner_word(struct datapath *dp, const struct kvs_splice *s)
{
	struct splicer *sp = dp ? atomic_load(&dp->sp) : NULL;

	if (sp && s->owner == sp->owner)
		return "this";
	return owner_alive(PIN_DIR, s->owner) ? "other" : "dead";
}

static void write_flags(struct jw *w, uint32_t flags)
{
	static const struct {
		uint32_t flag;
		const char *name;
	} all[] = {
		{ KVS_F_CLOSING, "closing" },	   { KVS_F_ORPHAN, "orphan" }, { KVS_F_POD_FIN, "pod_fin" },
		{ KVS_F_POD_RST, "pod_rst" },	   { KVS_F_BROKEN, "broken" }, { KVS_F_END, "end_known" },
		{ KVS_F_CLIENT, "client_closed" },
	};

	jw_key(w, "flags");
	jw_arr(w);
	for (unsigned i = 0; i < sizeof(all) / sizeof(*all); i++)
		if (flags & all[i].flag)
			jw_str(w, all[i].name);
	jw_end_arr(w);
}

static void write_flow(struct datapath *dp, struct jw *w, uint32_t id, const struct kvs_splice *s)
{
	uint64_t now = time_mono();
	struct carrier_view v;

	view_fill(s, &v);
	jw_obj(w);
	jw_ku64(w, "id", id);
	jw_kstr(w, "state", s->state < KVS_STATES_N ? states[s->state] : "unknown");
	jw_kstr(w, "owner", owner_word(dp, s));
	write_end(w, "client", &s->c_tuple.raddr, s->c_tuple.rport);
	write_end(w, "pod", &s->u_tuple.raddr, s->u_tuple.rport);
	jw_kstr(w, "framing",
		s->state < KVS_ARMED	    ? NULL
		: s->framing <= KVS_CHUNKED ? framings[s->framing]
					    : "unknown");
	jw_knum(w, "age_s", since(s->bound_at, now));
	jw_knum(w, "idle_s", since(s->last_at, now));
	jw_ku64(w, "bytes", s->bytes);
	jw_ku64(w, "unacked", v.unacked);
	write_flags(w, s->flags);
}

static void write_details(struct jw *w, const struct kvs_splice *s)
{
	char dev[IF_NAMESIZE];

	write_end(w, "client_side", &s->c_tuple.laddr, s->c_tuple.lport);
	write_end(w, "pod_side", &s->u_tuple.laddr, s->u_tuple.lport);
	jw_kstr(w, "client_device", if_indextoname(s->c.ifindex, dev) ? dev : NULL);
	jw_kstr(w, "pod_device", if_indextoname(s->u.ifindex, dev) ? dev : NULL);
	jw_ku64(w, "generation", s->gen);
	jw_ku64(w, "segments", s->segments);
	jw_ku64(w, "chunks", s->chunks);
	jw_ku64(w, "dropped", s->dropped);
	jw_ku64(w, "gaps", s->ranges_n);
	jw_knum(w, "ttft_s", s->first_at ? since(s->bound_at, s->first_at) : 0);
	jw_knum(w, "longest_gap_s", (double)s->gap_max / 1e9);
	jw_ku64(w, "pod_window", s->pod_win);
	jw_ku64(w, "client_offset", s->c.off);
	jw_ku64(w, "pod_offset", s->u.off);
}

int flow_list(struct datapath *dp, struct jw *w, struct buf *err)
{
	struct kvs_splice *v = calloc(BATCH, sizeof(*v));
	uint32_t keys[BATCH], at, next, n;
	int fd = v ? splices_open(err) : -ENOMEM, r = 0;
	bool first = true;

	if (fd < 0) {
		free(v);
		return fd;
	}
	jw_arr(w);
	while (!r) {
		n = BATCH;
		r = bpf_map_lookup_batch(fd, first ? NULL : &at, &next, keys, v, &n, NULL) < 0 ? -errno : 0;
		for (uint32_t i = 0; (!r || r == -ENOENT) && i < n; i++)
			if (v[i].state != KVS_FREE) {
				write_flow(dp, w, keys[i], &v[i]);
				jw_end_obj(w);
			}
		first = false;
		at = next;
	}
	jw_end_arr(w);
	close(fd);
	free(v);
	if (r != -ENOENT)
		buf_printf(err, "cannot read kvs_splices: %s\n", strerror(-r));
	return r == -ENOENT ? jw_err(w) : r;
}

static int splice_get(uint32_t id, struct kvs_splice *s, struct buf *err)
{
	int fd = splices_open(err);
	bool found;

	if (fd < 0)
		return fd;
	found = id && bpf_map_lookup_elem_flags(fd, &id, s, BPF_F_LOCK) == 0 && s->state != KVS_FREE;
	close(fd);
	if (found)
		return 0;
	buf_printf(err, "no splice %u; `kvsteer flow list` shows them\n", id);
	return -ENOENT;
}

int flow_show(struct datapath *dp, uint32_t id, struct jw *w, struct buf *err)
{
	struct kvs_splice s;
	int r = splice_get(id, &s, err);

	if (r)
		return r;
	write_flow(dp, w, id, &s);
	write_details(w, &s);
	jw_end_obj(w);
	return jw_err(w);
}

static int pinned_call(const struct programs *p, enum call c, void *args, size_t n)
{
	LIBBPF_OPTS(bpf_test_run_opts, o, .ctx_in = args, .ctx_size_in = (uint32_t)n);

	return bpf_prog_test_run_opts(p->fd[HOOKS + c], &o) < 0 ? -errno : (int)o.retval;
}

/* CLOSING first, then their sockets are made to send RST, the pod's first, and only then the splice goes. Where the
 * sockets are gone already, the peers find out when they send the next time. */
static int kill_foreign(const struct programs *p, uint32_t id, const struct kvs_splice *s)
{
	struct kvs_closing_args c = { .splice = id, .gen = s->gen };
	struct kvs_unbind_args u = { .splice = id, .gen = s->gen, .force = KVS_UNBIND_FORCE };
	int diag = diag_open(), r;

	r = pinned_call(p, CALL_closing, &c, sizeof(c));
	if (diag >= 0) {
		diag_destroy(diag, &s->u_tuple);
		diag_destroy(diag, &s->c_tuple);
		close(diag);
	}
	for (unsigned i = 0; !r && i < 100; i++) {
		r = pinned_call(p, CALL_unbind, &u, sizeof(u));
		if (r != -EAGAIN)
			break;
		usleep(1000);
		r = 0;
	}
	return r;
}

int flow_kill(struct datapath *dp, uint32_t id, struct buf *err)
{
	struct programs p;
	struct kvs_splice s;
	int r = splice_get(id, &s, err);

	if (r)
		return r;
	if (strcmp(owner_word(dp, &s), "other") == 0) {
		buf_printf(err, "splice %u belongs to another kvsteerd that is alive: ask that one\n", id);
		return -EBUSY;
	}
	r = pins_programs(PIN_DIR, SET_SPLICE, &p);
	if (!r)
		r = kill_foreign(&p, id, &s);
	programs_close(&p);
	if (r)
		buf_printf(err, "cannot end splice %u: %s\n", id, strerror(-r));
	return r;
}

/* SPDX-License-Identifier: Apache-2.0
 * `kvsteer bpf show | dump | unload`: what is in the kernel, read from the pins, whether or not a daemon runs.
 */
#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "datapath/datapath_int.h"

/* Calls <each> for every file of PIN_ROOT/<sub>, or of <dir>/<sub>, until it fails. -ENOENT: no such folder. */
static int each_file(const char *dir, const char *sub, int (*each)(void *arg, const char *path, const char *name),
		     void *arg)
{
	char path[PIN_MAX], file[2 * PIN_MAX + 2];
	struct dirent **v;
	int n, r = 0;

	snprintf(path, sizeof(path), "%.200s%s%.40s", dir, *sub ? "/" : "", sub);
	n = scandir(path, &v, NULL, alphasort);
	if (n < 0)
		return -errno;
	for (int i = 0; i < n; i++) {
		snprintf(file, sizeof(file), "%s/%s", path, v[i]->d_name);
		if (v[i]->d_name[0] != '.' && !r)
			r = each(arg, file, v[i]->d_name);
		free(v[i]);
	}
	free(v);
	return r;
}

/* -ENOENT with a line when nothing is pinned. */
static int each_version(int (*each)(void *arg, const char *path, const char *name), void *arg, struct buf *err)
{
	int r;

	pins_listen();
	r = each_file(PIN_ROOT, "", each, arg);
	if (r == -ENOENT)
		buf_printf(err, "nothing is pinned under %s: no kvsteerd with BPF has run since boot\n", PIN_ROOT);
	else if (r)
		buf_printf(err, "cannot read %s: %s\n", PIN_ROOT, strerror(-r));
	return r;
}

static const char *map_type_name(uint32_t type)
{
	const char *s = libbpf_bpf_map_type_str((enum bpf_map_type)type);

	return s ? s : "unknown";
}

struct show {
	struct jw *w; /* NULL: text */
	struct buf *out;
	struct ours ours;
};

static int show_meta(struct show *s, const char *dir, const char *name)
{
	struct kvs_meta meta = { 0 };
	char path[PIN_MAX], when[32] = "?";
	uint32_t zero = 0;
	time_t t;
	int fd;

	snprintf(path, sizeof(path), "%.200s/maps/kvs_meta", dir);
	fd = bpf_obj_get(path);
	if (fd >= 0) {
		bpf_map_lookup_elem(fd, &zero, &meta);
		close(fd);
	}
	t = (time_t)meta.made_at;
	strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", gmtime(&t));
	if (s->w) {
		jw_kstr(s->w, "abi", name);
		jw_kstr(s->w, "pins", dir);
		jw_kstr(s->w, "version", meta.version);
		jw_kstr(s->w, "made_at", when);
	} else {
		buf_printf(s->out, "%s  kvsteer %.48s, loaded at %s\n", dir, meta.version, when);
	}
	return 0;
}

static int show_program(void *arg, const char *path, const char *name)
{
	struct bpf_prog_info info = { 0 };
	uint32_t len = sizeof(info);
	struct show *s = arg;
	char tag[17] = "";
	int fd = bpf_obj_get(path);

	if (fd < 0)
		return 0;
	bpf_obj_get_info_by_fd(fd, &info, &len);
	close(fd);
	for (unsigned i = 0; i < sizeof(info.tag); i++)
		snprintf(tag + 2 * i, 3, "%02x", info.tag[i]);
	if (!s->w) {
		buf_printf(s->out, "  program  %-18s id %-5u tag %s  instructions %u, verified %u, jited %u bytes\n",
			   name, info.id, tag, info.xlated_prog_len / 8, info.verified_insns, info.jited_prog_len);
		return 0;
	}
	jw_obj(s->w);
	jw_kstr(s->w, "name", name);
	jw_kstr(s->w, "pin", path);
	jw_ku64(s->w, "id", info.id);
	jw_kstr(s->w, "tag", tag);
	jw_ku64(s->w, "instructions", info.xlated_prog_len / 8);
	jw_ku64(s->w, "verified_instructions", info.verified_insns);
	jw_ku64(s->w, "jited_bytes", info.jited_prog_len);
	jw_ku64(s->w, "runs", info.run_cnt);
	jw_ku64(s->w, "run_ns", info.run_time_ns);
	jw_end_obj(s->w);
	return 0;
}

static unsigned map_entries(int fd, uint32_t key_size)
{
	void *key = calloc(1, key_size ? key_size : 1), *next = calloc(1, key_size ? key_size : 1);
	unsigned n = 0;

	if (key && next)
		for (void *from = NULL; bpf_map_get_next_key(fd, from, next) == 0; from = key, n++)
			memcpy(key, next, key_size);
	free(key);
	free(next);
	return n;
}

static int show_map(void *arg, const char *path, const char *name)
{
	struct bpf_map_info info = { 0 };
	uint32_t len = sizeof(info);
	struct show *s = arg;
	int fd = bpf_obj_get(path);
	unsigned n;

	if (fd < 0)
		return 0;
	bpf_obj_get_info_by_fd(fd, &info, &len);
	n = map_entries(fd, info.key_size);
	close(fd);
	if (!s->w) {
		buf_printf(s->out, "  map      %-18s id %-5u %s  key %u, value %u bytes, entries %u of %u\n", name,
			   info.id, map_type_name(info.type), info.key_size, info.value_size, n, info.max_entries);
		return 0;
	}
	jw_obj(s->w);
	jw_kstr(s->w, "name", name);
	jw_kstr(s->w, "pin", path);
	jw_ku64(s->w, "id", info.id);
	jw_kstr(s->w, "type", map_type_name(info.type));
	jw_ku64(s->w, "key_size", info.key_size);
	jw_ku64(s->w, "value_size", info.value_size);
	jw_ku64(s->w, "entries", n);
	jw_ku64(s->w, "max_entries", info.max_entries);
	jw_end_obj(s->w);
	return 0;
}

static void show_attachment(struct show *s, uint32_t ifindex, const char *hook, const char *how, uint32_t program,
			    const char *pin, const struct filter *f)
{
	char dev[IF_NAMESIZE];

	if (!if_indextoname(ifindex, dev))
		snprintf(dev, sizeof(dev), "(gone)");
	if (!s->w) {
		buf_printf(s->out, "  link     %s %s  %s  program id %u", dev, hook, how, program);
		if (f)
			buf_printf(s->out, "  priority %u handle 0x%x", f->priority, f->handle);
		buf_puts(s->out, "\n");
		return;
	}
	jw_obj(s->w);
	jw_kstr(s->w, "device", dev);
	jw_ku64(s->w, "ifindex", ifindex);
	jw_kstr(s->w, "hook", hook);
	jw_kstr(s->w, "attach", how);
	jw_ku64(s->w, "program", program);
	jw_kstr(s->w, "pin", pin);
	if (f) {
		jw_ku64(s->w, "priority", f->priority);
		jw_ku64(s->w, "handle", f->handle);
	}
	jw_end_obj(s->w);
}

static int show_link(void *arg, const char *path, const char *name)
{
	struct bpf_link_info info = { 0 };
	uint32_t len = sizeof(info);
	struct show *s = arg;
	const char *hook = strrchr(name, '_');
	int fd = bpf_obj_get(path);

	if (fd < 0)
		return 0;
	bpf_obj_get_info_by_fd(fd, &info, &len);
	close(fd);
	show_attachment(s, info.xdp.ifindex, hook ? hook + 1 : name, "tcx", info.prog_id, path, NULL);
	return 0;
}

static void show_filters(struct show *s)
{
	struct if_nameindex *ifs = if_nameindex();
	struct filter f;

	for (struct if_nameindex *i = ifs; i && i->if_index; i++)
		for (enum hook h = 0; h < HOOKS; h++)
			if (filter_find(&s->ours, i->if_index, h, &f))
				show_attachment(s, i->if_index, hook_name(h), "clsact", f.program, NULL, &f);
	if_freenameindex(ifs);
}

static void show_list(struct show *s, const char *dir, const char *key, const char *sub,
		      int (*each)(void *arg, const char *path, const char *name))
{
	if (s->w) {
		jw_key(s->w, key);
		jw_arr(s->w);
	}
	each_file(dir, sub, each, s);
	if (strcmp(sub, "links") == 0)
		show_filters(s);
	if (s->w)
		jw_end_arr(s->w);
}

static int show_version(void *arg, const char *path, const char *name)
{
	struct show *s = arg;

	pins_ours(path, &s->ours);
	if (s->w)
		jw_obj(s->w);
	show_meta(s, path, name);
	show_list(s, path, "programs", "progs", show_program);
	show_list(s, path, "links", "links", show_link);
	show_list(s, path, "maps", "maps", show_map);
	if (s->w)
		jw_end_obj(s->w);
	return 0;
}

int bpf_cmd_show(bool json, struct buf *out, struct buf *err)
{
	struct jw w;
	struct show s = { .w = json ? &w : NULL, .out = out };
	int r;

	if (access(PIN_ROOT, F_OK) == 0 && json) {
		jw_init(&w, out);
		jw_arr(&w);
	}
	r = each_version(show_version, &s, err);
	if (!r && json) {
		jw_end_arr(&w);
		r = jw_err(&w);
	}
	return r;
}

/* --- dump --- */

static int dump_entries(int fd, const struct bpf_map_info *info, const struct btf *btf, bool json, struct buf *out)
{
	bool per_cpu = info->type == BPF_MAP_TYPE_PERCPU_HASH || info->type == BPF_MAP_TYPE_PERCPU_ARRAY ||
		       info->type == BPF_MAP_TYPE_LRU_PERCPU_HASH;
	int cpus = libbpf_num_possible_cpus();
	unsigned words = (info->value_size + 7) / 8;
	uint64_t *value = calloc(words, 8), *scratch = calloc((size_t)words * (size_t)(cpus > 0 ? cpus : 1), 8);
	uint8_t *key = calloc(1, info->key_size + 8), *next = calloc(1, info->key_size + 8), *from = NULL;
	struct buf line = { 0 };
	struct jw w;
	int r = value && scratch && key && next ? 0 : -ENOMEM;

	jw_init(&w, out);
	if (json)
		jw_arr(&w);
	for (; !r && bpf_map_get_next_key(fd, from, next) == 0; from = key) {
		memcpy(key, next, info->key_size);
		/* Per-CPU maps hold counters only; what counts is their sum. An entry that has just gone is no error.
		 */
		if (per_cpu ? map_sum(fd, key, scratch, value, words) : bpf_map_lookup_elem(fd, key, value))
			continue;
		if (json) {
			jw_obj(&w);
			jw_key(&w, "key");
			btf_print(btf, info->btf_key_type_id, key, &w, NULL);
			jw_key(&w, "value");
			btf_print(btf, info->btf_value_type_id, value, &w, NULL);
			jw_end_obj(&w);
			continue;
		}
		btf_print(btf, info->btf_key_type_id, key, NULL, &line);
		btf_print(btf, info->btf_value_type_id, value, NULL, &line);
		buf_put(out, buf_data(&line), buf_len(&line));
		r = buf_puts(out, "\n");
		buf_consume(&line, buf_len(&line));
	}
	if (json) {
		jw_end_arr(&w);
		r = r ? r : jw_err(&w);
	}
	buf_free(&line);
	free(value);
	free(scratch);
	free(key);
	free(next);
	return r;
}

int bpf_cmd_dump(const char *map, bool json, struct buf *out, struct buf *err)
{
	const char *prefix = strncmp(map, "kvs_", 4) == 0 ? "" : "kvs_";
	struct bpf_map_info info = { 0 };
	uint32_t len = sizeof(info);
	struct btf *btf = NULL;
	char path[PIN_MAX];
	int fd, r;

	pins_listen();
	snprintf(path, sizeof(path), PIN_DIR "/maps/%s%.60s", prefix, map);
	fd = strchr(map, '/') ? (errno = ENOENT, -1) : bpf_obj_get(path);
	if (fd < 0) {
		r = -errno;
		buf_printf(err, "no map %s%s under %s/maps: %s; `kvsteer bpf show` lists them\n", prefix, map, PIN_DIR,
			   strerror(-r));
		return r;
	}
	r = bpf_obj_get_info_by_fd(fd, &info, &len) < 0 ? -errno : 0;
	if (!r) {
		btf = btf__load_from_kernel_by_id(info.btf_id);
		r = btf ? 0 : -errno;
	}
	if (!r)
		r = dump_entries(fd, &info, btf, json, out);
	if (r)
		buf_printf(err, "cannot read map %s: %s%s\n", path, strerror(-r),
			   r == -EPERM ? "; reading its types needs CAP_SYS_ADMIN: run as root" : "");
	btf__free(btf);
	close(fd);
	return r;
}

/* --- unload --- */

static int unload_version(void *arg, const char *path, const char *name)
{
	struct buf *out = arg;
	unsigned n = version_remove(path);

	buf_printf(out, "%s: detached from %u device%s and removed\n", path, n, n == 1 ? "" : "s");
	return 0;
}

int bpf_cmd_unload(struct buf *out, struct buf *err)
{
	return each_version(unload_version, out, err);
}

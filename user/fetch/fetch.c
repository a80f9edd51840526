/* SPDX-License-Identifier: Apache-2.0
 * One libcurl multi handle on a loop. libcurl tells which descriptors it waits for (on_socket) and when it wants to be
 * called (on_timeout); finished transfers are taken from it behind each call (reap).
 */
#include "fetch/fetch.h"

#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/list.h"
#include "base/time.h"

#define KEY_INTERVAL (10 * NS_PER_S)

struct fetch {
	struct loop *loop;
	CURLM *multi;
	struct loop_timer timeout;
	struct list sockets;
};

struct sock {
	struct list link;
	struct loop_fd fd;
	struct fetch *f;
};

static void finished(struct fetch_ask *a, CURLcode code)
{
	a->status = 0;
	curl_easy_getinfo(a->easy, CURLINFO_RESPONSE_CODE, &a->status);
	curl_multi_remove_handle(a->f->multi, a->easy);
	a->running = false;
	if (code == CURLE_WRITE_ERROR)
		snprintf(a->error, sizeof(a->error), "the answer is larger than %zu MiB", a->body_max >> 20);
	else if (code && !a->error[0])
		snprintf(a->error, sizeof(a->error), "%s", curl_easy_strerror(code));
	else if (!code)
		a->error[0] = '\0';
	a->done(a);
	if (!a->running)
		buf_free(&a->body); /* answers are some 60 KB, and pods many */
}

static void reap(struct fetch *f)
{
	CURLMsg *m;
	int left;

	while ((m = curl_multi_info_read(f->multi, &left))) {
		CURLcode code = m->data.result;
		struct fetch_ask *a = NULL;

		if (m->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&a);
		finished(a, code);
	}
}

static void on_ready(struct loop_fd *fd, uint32_t ev)
{
	struct sock *k = container_of(fd, struct sock, fd);
	struct fetch *f = k->f;
	int flags = 0, running;

	if (ev & (EPOLLIN | EPOLLRDHUP | EPOLLHUP))
		flags |= CURL_CSELECT_IN;
	if (ev & EPOLLOUT)
		flags |= CURL_CSELECT_OUT;
	if (ev & EPOLLERR)
		flags |= CURL_CSELECT_ERR;
	curl_multi_socket_action(f->multi, fd->fd, flags, &running);
	reap(f);
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *per_socket)
{
	struct fetch *f = arg;
	struct sock *k = per_socket;
	uint32_t events = (what & CURL_POLL_IN ? EPOLLIN : 0) | (what & CURL_POLL_OUT ? EPOLLOUT : 0);

	if (what == CURL_POLL_REMOVE) {
		if (k) {
			loop_fd_del(&k->fd);
			list_del(&k->link);
			free(k);
			curl_multi_assign(f->multi, fd, NULL);
		}
		return 0;
	}
	if (k)
		return loop_fd_mod(&k->fd, events) ? -1 : 0;
	k = calloc(1, sizeof(*k));
	if (!k)
		return -1;
	k->f = f;
	k->fd = (struct loop_fd){ .ready = on_ready, .fd = -1 };
	if (loop_fd_add(f->loop, &k->fd, fd, events)) {
		free(k);
		return -1;
	}
	list_add(&f->sockets, &k->link);
	curl_multi_assign(f->multi, fd, k);
	return 0;
}

static int on_timeout(CURLM *multi, long ms, void *arg)
{
	struct fetch *f = arg;

	if (ms < 0) {
		loop_timer_del(f->loop, &f->timeout);
		return 0;
	}
	/* 0: it would be called now, but not from inside of its own call; by this turn's clock that is in this turn. */
	return loop_timer_set(f->loop, &f->timeout, (ms ? time_mono() : loop_now(f->loop)) + (uint64_t)ms * NS_PER_MS)
		       ? -1
		       : 0;
}

static void on_fire(struct loop_timer *t)
{
	struct fetch *f = container_of(t, struct fetch, timeout);
	int running;

	curl_multi_socket_action(f->multi, CURL_SOCKET_TIMEOUT, 0, &running);
	reap(f);
}

static size_t on_body(char *p, size_t size, size_t n, void *arg)
{
	struct fetch_ask *a = arg;

	n *= size;
	if (buf_len(&a->body) + n > a->body_max || buf_put(&a->body, p, n))
		return 0;
	return n;
}

static CURL *easy_new(struct fetch_ask *a)
{
	CURL *c = curl_easy_init();

	if (!c)
		return NULL;
	curl_easy_setopt(c, CURLOPT_PRIVATE, a);
	curl_easy_setopt(c, CURLOPT_ERRORBUFFER, a->error);
	curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(c, CURLOPT_WRITEDATA, a);
	curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(c, CURLOPT_PROXY, "");	   /* whatever the environment says, pods are near */
	curl_easy_setopt(c, CURLOPT_NOPROXY, "*"); /* nor is it asked each time */
#if LIBCURL_VERSION_NUM >= 0x075500
	curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http");
#else
	curl_easy_setopt(c, CURLOPT_PROTOCOLS, (long)CURLPROTO_HTTP);
#endif
	curl_easy_setopt(c, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(c, CURLOPT_USERAGENT, "kvsteer");
	curl_easy_setopt(c, CURLOPT_TCP_NODELAY, 1L);
	return c;
}

void fetch_init(struct fetch_ask *a, struct fetch *f, size_t body_max, void (*done)(struct fetch_ask *a))
{
	*a = (struct fetch_ask){ .f = f, .body_max = body_max, .done = done };
}

int fetch_go(struct fetch_ask *a, const char *method, const char *url, const char *key, uint64_t timeout_ns)
{
	if (a->running)
		return -EBUSY;
	if (!a->easy)
		a->easy = easy_new(a);
	if (!a->easy)
		return -ENOMEM;
	curl_easy_setopt(a->easy, CURLOPT_URL, url);
	if (!strcmp(method, "POST")) {
		curl_easy_setopt(a->easy, CURLOPT_POSTFIELDS, "");
		curl_easy_setopt(a->easy, CURLOPT_POST, 1L);
	} else {
		curl_easy_setopt(a->easy, CURLOPT_HTTPGET, 1L);
	}
	curl_easy_setopt(a->easy, CURLOPT_TIMEOUT_MS, (long)(timeout_ns / NS_PER_MS));
	curl_easy_setopt(a->easy, CURLOPT_HTTPAUTH, key ? CURLAUTH_BEARER : CURLAUTH_NONE);
	curl_easy_setopt(a->easy, CURLOPT_XOAUTH2_BEARER, key);
	buf_consume(&a->body, buf_len(&a->body));
	a->error[0] = '\0';
	a->running = true;
	/* It goes on at once with on_timeout(0). */
	if (!curl_multi_add_handle(a->f->multi, a->easy))
		return 0;
	a->running = false;
	return -ENOMEM;
}

void fetch_fini(struct fetch_ask *a)
{
	if (a->running)
		curl_multi_remove_handle(a->f->multi, a->easy);
	if (a->easy)
		curl_easy_cleanup(a->easy);
	a->running = false;
	a->easy = NULL;
	buf_free(&a->body);
}

void fetch_keep(struct fetch *f, unsigned n)
{
	curl_multi_setopt(f->multi, CURLMOPT_MAXCONNECTS, (long)n + 16);
}

struct fetch *fetch_new(struct loop *l)
{
	struct fetch *f = calloc(1, sizeof(*f));

	if (!f)
		return NULL;
	f->loop = l;
	list_init(&f->sockets);
	loop_timer_init(&f->timeout, on_fire);
	if (curl_global_init(CURL_GLOBAL_DEFAULT)) {
		free(f);
		errno = ENOMEM;
		return NULL;
	}
	f->multi = curl_multi_init();
	if (!f->multi) {
		curl_global_cleanup();
		free(f);
		errno = ENOMEM;
		return NULL;
	}
	curl_multi_setopt(f->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
	curl_multi_setopt(f->multi, CURLMOPT_SOCKETDATA, f);
	curl_multi_setopt(f->multi, CURLMOPT_TIMERFUNCTION, on_timeout);
	curl_multi_setopt(f->multi, CURLMOPT_TIMERDATA, f);
	return f;
}

void fetch_free(struct fetch *f)
{
	if (!f)
		return;
	curl_multi_cleanup(f->multi);
	/* Idle connections that libcurl did not watch any more have no sock. */
	list_for_each_safe (it, tmp, &f->sockets) {
		struct sock *k = container_of(it, struct sock, link);

		loop_fd_del(&k->fd);
		list_del(&k->link);
		free(k);
	}
	loop_timer_del(f->loop, &f->timeout);
	curl_global_cleanup();
	free(f);
}

const char *fetch_key(struct fetch_key *k, uint64_t now_ns)
{
	ssize_t n;
	int fd;

	if (!k->file)
		return NULL;
	if (k->read_ns && now_ns - k->read_ns < KEY_INTERVAL)
		return k->text[0] ? k->text : NULL;
	k->read_ns = now_ns;
	fd = open(k->file, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, k->text, sizeof(k->text) - 1);
	if (fd >= 0)
		close(fd);
	k->text[n > 0 ? n : 0] = '\0';
	k->text[strcspn(k->text, "\r\n")] = '\0';
	return k->text[0] ? k->text : NULL;
}

/* SPDX-License-Identifier: Apache-2.0
 * Events over HTTP: a small server in a thread that plays TensorRT-LLM's, with the events thread and an index of its
 * own. As there, an answer is what has gathered, and then it is gone.
 */
#include <poll.h>
#include <pthread.h>

#include "events_scene.h"

struct server {
	int fd;
	pthread_t thread;
	atomic_bool stop;
	pthread_mutex_t lock;
	struct buf next; /* events of the next answer, joined by commas */
	bool raw;	 /* <next> is the answer itself */
	const char *method, *key;
	int status;
	unsigned polls, wrong; /* answered; with another method */
	bool keyed;	       /* the last one had the key */
	uint16_t port;
};

static void answer(struct server *v, int fd, const char *req)
{
	struct buf out = { 0 };
	struct str body;

	pthread_mutex_lock(&v->lock);
	v->keyed = strstr(req, "Authorization: Bearer k1\r\n") != NULL;
	if (strncmp(req, v->method, strlen(v->method)) != 0) {
		v->wrong++;
		buf_puts(&out, "HTTP/1.1 405 X\r\nContent-Length: 0\r\n\r\n");
	} else if (v->status != 200) {
		v->polls++;
		buf_printf(&out, "HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n", v->status);
	} else {
		v->polls++;
		body = v->next.mem ? buf_str(&v->next) : STR("");
		buf_printf(&out, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n%s%.*s%s", body.n + (v->raw ? 0 : 2),
			   v->raw ? "" : "[", (int)body.n, body.p, v->raw ? "" : "]");
		buf_consume(&v->next, buf_len(&v->next));
		v->raw = false;
	}
	pthread_mutex_unlock(&v->lock);
	(void)!send(fd, buf_data(&out), buf_len(&out), MSG_NOSIGNAL);
	buf_free(&out);
}

static void *serve(void *arg)
{
	struct server *v = arg;
	struct pollfd p[8] = { { .fd = v->fd, .events = POLLIN } };
	unsigned n = 1;

	while (!v->stop) {
		poll(p, n, 5);
		if (p[0].revents && n < 8)
			p[n++] = (struct pollfd){ .fd = accept(v->fd, NULL, NULL), .events = POLLIN };
		for (unsigned i = 1; i < n; i++) {
			char req[4096];
			ssize_t k;

			if (!p[i].revents)
				continue;
			p[i].revents = 0;
			k = read(p[i].fd, req, sizeof(req) - 1);
			if (k > 0) {
				req[k] = '\0';
				answer(v, p[i].fd, req);
				continue;
			}
			close(p[i].fd);
			p[i--] = p[--n];
		}
	}
	for (unsigned i = 1; i < n; i++)
		close(p[i].fd);
	return NULL;
}

static void server_start(struct server *v)
{
	struct net_addr a;
	socklen_t n = sizeof(a.v4);
	char name[32];

	snprintf(name, sizeof(name), "127.0.0.1:%u", v->port);
	assert_int_equal(net_addr_parse(str_of(name), &a), 0);
	v->fd = net_listen(&a, 16);
	assert_true(v->fd >= 0);
	assert_int_equal(getsockname(v->fd, &a.sa, &n), 0);
	v->port = net_addr_port(&a);
	v->stop = false;
	assert_int_equal(pthread_create(&v->thread, NULL, serve, v), 0);
}

static void server_stop(struct server *v)
{
	v->stop = true;
	pthread_join(v->thread, NULL);
	close(v->fd);
}

/* --- the scene --- */

struct http_scene {
	struct scene c;
	struct server v;
};

static void begin_http(struct http_scene *h, const char *method, const char *key_file, unsigned ranks)
{
	struct pod_spec spec = { .weight = 1, .ranks = ranks };
	struct scene *c = &h->c;

	memset(h, 0, sizeof(*h));
	pthread_mutex_init(&h->v.lock, NULL);
	h->v.method = method;
	h->v.status = 200;
	server_start(&h->v);
	qsbr_init(&c->q, 1);
	c->x = index_new(&c->q, 64 << 20, 8);
	c->v = vocab_bytes();
	c->e = events_start_timed(c->x, &c->st,
				  &(struct events_timing){ .idle_ns = 300 * NS_PER_MS,
							   .total_ns = 5 * NS_PER_S,
							   .cooldown_ns = 500 * NS_PER_MS,
							   .poll_ns = 10 * NS_PER_MS,
							   .timeout_ns = 500 * NS_PER_MS,
							   .unknown_ns = 400 * NS_PER_MS },
				  NULL);
	assert_non_null(c->e);
	assert_int_equal(events_key_file(c->e, 0, key_file), 0);
	c->table = endpoints_new(&c->q);
	endpoints_hook(c->table, (struct endpoints_hooks){ .on_add = on_add, .on_remove = on_remove, .arg = c });
	net_addr_parse(STR("127.0.0.1:8000"), &spec.addr);
	snprintf(spec.events, sizeof(spec.events), "http://127.0.0.1:%u/kv_cache_events", h->v.port);
	assert_int_equal(endpoints_set(c->table, 0, "test", &spec, 1), 1);
	c->p->holder[1] = 4;
	assert_int_equal(events_add(c->e, c->p, c->v, ""), 0);
}

static void begin_known(struct http_scene *h)
{
	begin_http(h, "GET ", NULL, 1);
	events_rebase(h->c.e, h->c.p, BASE);
}

static void end_http(struct http_scene *h)
{
	struct scene *c = &h->c;

	events_remove(c->e, c->p);
	events_stop(c->e);
	server_stop(&h->v);
	endpoints_free(c->table);
	vocab_unref(c->v);
	index_free(c->x);
	buf_free(&h->v.next);
	pthread_mutex_destroy(&h->v.lock);
}

/* One more event in the next answer: "%s" is what stands beside event_id. */
static void tell(struct http_scene *h, unsigned id, const char *text)
{
	struct server *v = &h->v;

	pthread_mutex_lock(&v->lock);
	buf_printf(&v->next, "%s{\"event_id\":%u,%s}", buf_len(&v->next) ? "," : "", id, text);
	pthread_mutex_unlock(&v->lock);
}

static void tell_raw(struct http_scene *h, const char *body)
{
	pthread_mutex_lock(&h->v.lock);
	buf_puts(&h->v.next, body);
	h->v.raw = true;
	pthread_mutex_unlock(&h->v.lock);
}

#define CREATED "\"data\":{\"type\":\"created\",\"num_blocks_per_cache_level\":[100,0]}"

/* Blocks of 16 bytes of <text>, hashes counting up from <hash>. */
static void tell_stored(struct http_scene *h, unsigned id, unsigned parent, unsigned hash, const char *text,
			const char *more)
{
	struct buf b = { 0 };
	char p[16];

	snprintf(p, sizeof(p), "%u", parent);
	buf_printf(&b, "\"data\":{\"type\":\"stored\",\"parent_hash\":%s,\"blocks\":[", parent ? p : "null");
	for (unsigned i = 0; i * BLOCK < strlen(text); i++) {
		buf_printf(&b, "%s{\"type\":\"stored_block\",\"block_hash\":%u,\"tokens\":[", i ? "," : "", hash + i);
		for (unsigned k = 0; k < BLOCK; k++)
			buf_printf(&b, "%s{\"type\":\"unique_token\",\"token_id\":%u,\"token_extra_id\":0}",
				   k ? "," : "", (uint8_t)text[i * BLOCK + k]);
		buf_puts(&b, "],\"cache_level\":0,\"priority\":35}");
	}
	buf_printf(&b, "]}%s", more);
	buf_put(&b, "", 1);
	tell(h, id, buf_data(&b));
	buf_free(&b);
}

static void tell_removed(struct http_scene *h, unsigned id, unsigned hash)
{
	char text[128];

	snprintf(text, sizeof(text), "\"data\":{\"type\":\"removed\",\"block_hashes\":[%u]}", hash);
	tell(h, id, text);
}

static unsigned polls(struct http_scene *h)
{
	unsigned n;

	pthread_mutex_lock(&h->v.lock);
	n = h->v.polls;
	pthread_mutex_unlock(&h->v.lock);
	return n;
}

/* --- the cases --- */

static void blocks_are_known_until_they_are_removed(void **state)
{
	struct http_scene h;

	begin_known(&h);
	tell(&h, 0, CREATED);
	tell_stored(&h, 1, 0, 10, TEXT_A, "");
	until(h.c.p->index_live && predicted(&h.c, TEXT_A "x") == 32);
	tell_stored(&h, 2, 11, 12, TEXT_B, "");
	until(predicted(&h.c, TEXT_A TEXT_B "x") == 64);
	tell_removed(&h, 3, 13);
	until(predicted(&h.c, TEXT_A TEXT_B "x") == 48);
	/* Down a tier it is still there; gone is gone, wherever it was and however often it was told. */
	tell(&h, 4,
	     "\"data\":{\"type\":\"updated\",\"block_hash\":12,\"cache_level\":{\"new_value\":1,\"old_value\":0}}");
	tell_stored(&h, 5, 11, 12, "Pack my box with", "");
	tell_stored(&h, 6, 11, 12, "Pack my box with", "");
	until(stat(&h.c, STATS_EVENT_BATCHES) == 7);
	assert_int_equal(predicted(&h.c, TEXT_A TEXT_B "x"), 48);
	tell_removed(&h, 7, 12);
	until(predicted(&h.c, TEXT_A TEXT_B "x") == 32);
	tell(&h, 8, CREATED);
	until(predicted(&h.c, TEXT_A "x") == 0);
	assert_true(h.c.p->index_live);
	assert_int_equal(stat(&h.c, STATS_EVENT_GAP) + stat(&h.c, STATS_EVENT_RESTART) + stat(&h.c, STATS_EVENT_BAD),
			 0);
	end_http(&h);
}

static void an_engine_that_tells_nothing_is_not_live(void **state)
{
	struct http_scene h;

	begin_known(&h);
	until(polls(&h) > 3);
	assert_false(h.c.p->index_live);
	tell(&h, 5, CREATED);
	until(h.c.p->index_live);
	end_http(&h);
}

static void history_is_not_asked_for_before_the_name_is_known(void **state)
{
	struct http_scene h;

	begin_http(&h, "GET ", NULL, 1);
	tell_stored(&h, 0, 0, 10, TEXT_A, "");
	usleep(100000);
	assert_int_equal(polls(&h), 0);
	events_rebase(h.c.e, h.c.p, BASE);
	until(predicted(&h.c, TEXT_A "x") == 32);
	end_http(&h);

	begin_http(&h, "GET ", NULL, 1); /* nor for ever left alone */
	until(polls(&h) > 0);
	end_http(&h);
}

static void a_gap_makes_the_pod_stale_until_the_cache_is_new(void **state)
{
	struct http_scene h;

	begin_known(&h);
	tell_stored(&h, 4, 0, 10, TEXT_A, "");
	until(h.c.p->index_live);
	tell_stored(&h, 6, 11, 12, TEXT_B, "");
	until(h.c.p->index_stale && !h.c.p->index_live);
	assert_int_equal(stat(&h.c, STATS_EVENT_GAP), 1);
	assert_int_equal(predicted(&h.c, TEXT_A TEXT_B "x"), 64); /* what is known stays of use */
	tell(&h, 7, CREATED);
	until(h.c.p->index_live && !h.c.p->index_stale);
	end_http(&h);
}

static void a_number_that_goes_back_is_a_restart_though_the_event_is_the_same(void **state)
{
	struct http_scene h;

	begin_known(&h);
	tell_stored(&h, 0, 0, 10, TEXT_A, "");
	tell_stored(&h, 1, 0, 20, TEXT_B, "");
	until(predicted(&h.c, TEXT_B "x") == 32);
	tell_stored(&h, 0, 0, 10, TEXT_A, "");
	until(predicted(&h.c, TEXT_B "x") == 0 && predicted(&h.c, TEXT_A "x") == 32);
	assert_int_equal(stat(&h.c, STATS_EVENT_RESTART), 1);
	until(h.c.p->index_live);
	end_http(&h);
}

static void while_it_does_not_answer_it_is_not_live(void **state)
{
	struct http_scene h;

	begin_known(&h);
	tell_stored(&h, 0, 0, 10, TEXT_A, "");
	until(h.c.p->index_live);
	server_stop(&h.v);
	until(!h.c.p->index_live);
	assert_true(stat(&h.c, STATS_EVENT_POLL_FAIL) > 0);
	server_start(&h.v);
	until(h.c.p->index_stale); /* was it the same process all the time? */
	assert_false(h.c.p->index_live);
	tell_stored(&h, 1, 11, 12, TEXT_B, "");
	until(h.c.p->index_live && !h.c.p->index_stale);
	assert_int_equal(predicted(&h.c, TEXT_A TEXT_B "x"), 64);
	end_http(&h);
}

static void refusals_are_counted_and_asked_again(void **state)
{
	struct http_scene h;

	begin_known(&h);
	pthread_mutex_lock(&h.v.lock);
	h.v.status = 404;
	pthread_mutex_unlock(&h.v.lock);
	tell_stored(&h, 0, 0, 10, TEXT_A, "");
	until(stat(&h.c, STATS_EVENT_POLL_FAIL) > 1);
	assert_false(h.c.p->index_live);
	pthread_mutex_lock(&h.v.lock);
	h.v.status = 200;
	pthread_mutex_unlock(&h.v.lock);
	until(h.c.p->index_live && predicted(&h.c, TEXT_A "x") == 32);
	end_http(&h);
}

static void wrong_input_is_counted_and_the_rest_goes_on(void **state)
{
	struct http_scene h;

	begin_known(&h);
	tell_stored(&h, 0, 0, 10, TEXT_A, "");
	until(h.c.p->index_live);
	tell_raw(&h, "<html>no</html>");
	until(stat(&h.c, STATS_EVENT_BAD_BATCH) == 1);
	tell_raw(&h,
		 "[{\"event_id\":1,\"data\":{\"type\":\"stored\"}},7,{\"event_id\":2,\"data\":{\"type\":\"new\"}}]");
	until(stat(&h.c, STATS_EVENT_SKIPPED) == 1);
	assert_int_equal(stat(&h.c, STATS_EVENT_BAD), 2);
	tell_stored(&h, 3, 11, 12, "Pack my box with", ",\"attention_dp_rank\":3"); /* there is no such rank */
	until(stat(&h.c, STATS_EVENT_BAD) == 3);
	tell_stored(&h, 3, 0, 20, TEXT_B, "");
	until(predicted(&h.c, TEXT_B "x") == 32);
	assert_true(h.c.p->index_live && predicted(&h.c, TEXT_A "x") == 32);
	assert_int_equal(stat(&h.c, STATS_EVENT_GAP), 0);
	end_http(&h);
}

static void the_method_that_the_server_takes_is_found(void **state)
{
	struct http_scene h;

	begin_http(&h, "POST ", NULL, 1);
	events_rebase(h.c.e, h.c.p, BASE);
	tell_stored(&h, 0, 0, 10, TEXT_A, "");
	until(h.c.p->index_live && polls(&h) > 5);
	assert_int_equal(h.v.wrong, 1); /* and then it is known */
	assert_int_equal(stat(&h.c, STATS_EVENT_POLL_FAIL), 0);
	end_http(&h);
}

static void the_pool_s_key_is_sent(void **state)
{
	char file[] = "/tmp/kvs-key-XXXXXX";
	int fd = mkstemp(file);
	struct http_scene h;

	assert_int_equal(write(fd, "k1\n", 3), 3);
	close(fd);
	begin_http(&h, "GET ", file, 1);
	events_rebase(h.c.e, h.c.p, BASE);
	until(polls(&h) > 0);
	assert_true(h.v.keyed);
	end_http(&h);
	unlink(file);
}

static void only_the_largest_window_is_indexed(void **state)
{
	struct http_scene h;

	begin_known(&h);
	tell_stored(&h, 0, 0, 10, TEXT_A, ",\"window_size\":512"); /* the created events were missed */
	until(predicted(&h.c, TEXT_A "x") == 32);
	tell_stored(&h, 1, 0, 20, TEXT_B, ",\"window_size\":4096,\"layer_group_id\":1");
	until(predicted(&h.c, TEXT_B "x") == 32);
	assert_int_equal(predicted(&h.c, TEXT_A "x"), 0);
	tell_stored(&h, 2, 0, 30, TEXT_A, ",\"window_size\":512");
	tell_stored(&h, 3, 0, 40, TEXT_C, ",\"window_size\":4096,\"layer_group_id\":2");
	tell_stored(&h, 4, 21, 50, TEXT_D, ",\"window_size\":4096,\"layer_group_id\":1");
	until(predicted(&h.c, TEXT_B TEXT_D "x") == 64);
	assert_int_equal(stat(&h.c, STATS_EVENT_GROUP), 2);
	assert_int_equal(predicted(&h.c, TEXT_A "x") + predicted(&h.c, TEXT_C "x"), 0);
	end_http(&h);
}

static void ranks_have_their_own_numbers(void **state)
{
	struct http_scene h;

	begin_http(&h, "GET ", NULL, 2);
	events_rebase(h.c.e, h.c.p, BASE);
	tell_stored(&h, 0, 0, 10, TEXT_A, ",\"attention_dp_rank\":0");
	until(predicted(&h.c, TEXT_A "x") == 32);
	assert_false(h.c.p->index_live);
	tell_stored(&h, 0, 0, 10, TEXT_B, ",\"attention_dp_rank\":1");
	until(h.c.p->index_live);
	assert_int_equal(stat(&h.c, STATS_EVENT_RESTART), 0);
	assert_int_equal(predicted(&h.c, TEXT_B "x"), 0); /* it is the other holder's */
	end_http(&h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(blocks_are_known_until_they_are_removed),
		cmocka_unit_test(an_engine_that_tells_nothing_is_not_live),
		cmocka_unit_test(history_is_not_asked_for_before_the_name_is_known),
		cmocka_unit_test(a_gap_makes_the_pod_stale_until_the_cache_is_new),
		cmocka_unit_test(a_number_that_goes_back_is_a_restart_though_the_event_is_the_same),
		cmocka_unit_test(while_it_does_not_answer_it_is_not_live),
		cmocka_unit_test(refusals_are_counted_and_asked_again),
		cmocka_unit_test(wrong_input_is_counted_and_the_rest_goes_on),
		cmocka_unit_test(the_method_that_the_server_takes_is_found),
		cmocka_unit_test(the_pool_s_key_is_sent),
		cmocka_unit_test(only_the_largest_window_is_indexed),
		cmocka_unit_test(ranks_have_their_own_numbers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

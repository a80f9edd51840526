/* SPDX-License-Identifier: Apache-2.0
 * The index on disk: one gateway after the other before an engine that goes on. Under test are the threads that
 * pthread_create makes in events.c and keep.c.
 */
#include <fcntl.h>
#include <sys/file.h>

#include "events_scene.h"

static char dir[] = "/tmp/kvs-keep-XXXXXX", path[64];

static struct index_file *kept(struct index_secrets *secrets)
{
	struct index_file *f;
	int64_t written;
	char why[256];

	f = index_file_open(path, secrets, &written, why, sizeof(why));
	if (!f)
		fail_msg("%s", why);
	assert_true(written > 0);
	return f;
}

static struct events_keep keep_of(struct index_file *from, uint64_t every_ns)
{
	return (struct events_keep){ .path = path, .from = from, .every_ns = every_ns, .stale_ns = 60 * NS_PER_S };
}

static void end_old(struct scene *c)
{
	char b[16];

	end_gateway(c);
	assert_true(readable(c->g.pub, 5000)); /* the old subscription goes */
	assert_int_equal(zmq_recv(c->g.pub, b, sizeof(b), 0), 1);
	assert_int_equal(b[0], 0);
}

/* What a gateway, and then another one, does with the engine of <c>. */
static void again(struct scene *c, bool replay, uint64_t every_ns)
{
	struct index_secrets secrets;
	struct events_keep keep;

	end_old(c);
	keep = keep_of(kept(&secrets), every_ns);
	memset(&c->st, 0, sizeof(c->st));
	begin_gateway(c, replay, vocab_bytes(), &keep, &secrets);
}

static void start(struct scene *c, bool replay, uint64_t every_ns)
{
	struct events_keep keep = keep_of(NULL, every_ns);

	memset(c, 0, sizeof(*c));
	engine_start(&c->g, replay);
	begin_gateway(c, replay, vocab_bytes(), &keep, NULL);
}

static void the_next_batch_proves_it(void **state)
{
	struct scene c;

	start(&c, false, 60 * NS_PER_S);
	send_seq(&c, 5, stored(0, 10, TEXT_A, BLOCK, NULL));
	until(predicted(&c, TEXT_A "x") == 32);
	again(&c, false, 60 * NS_PER_S);
	until(predicted(&c, TEXT_A "x") == 32);
	until(atomic_load(&c.p->index_stale) && !atomic_load(&c.p->index_live));
	send_seq(&c, 6, stored(11, 20, TEXT_B, BLOCK, NULL));
	until(atomic_load(&c.p->index_live));
	assert_int_equal(predicted(&c, TEXT_A TEXT_B "x"), 64);
	send_seq(&c, 7, removed(11));
	until(predicted(&c, TEXT_A TEXT_B "x") == 16);
	end(&c);
}

static void a_replay_from_there_proves_it(void **state)
{
	struct buf b5 = stored(0, 10, TEXT_A, BLOCK, NULL), b6 = stored(11, 20, TEXT_B, BLOCK, NULL);
	struct scene c;
	struct asked a;

	start(&c, true, 60 * NS_PER_S);
	answer_nothing(&c, 0);
	publish(&c.g, 5, &b5);
	until(predicted(&c, TEXT_A "x") == 32);
	again(&c, true, 60 * NS_PER_S);
	a = engine_asked(&c.g);
	assert_true(a.from == 5);
	reply(&c.g, &a, 5, &b5, true);
	reply(&c.g, &a, 6, &b6, true);
	reply_end(&c.g, &a, true);
	until(atomic_load(&c.p->index_live));
	assert_int_equal(predicted(&c, TEXT_A TEXT_B "x"), 64);
	/* A history that does not reach back: it begins there, with nothing. */
	again(&c, true, 60 * NS_PER_S);
	a = engine_asked(&c.g);
	assert_true(a.from == 6);
	reply(&c.g, &a, 9, &b5, true);
	reply_end(&c.g, &a, true);
	until(atomic_load(&c.p->index_live));
	assert_int_equal(predicted(&c, TEXT_A TEXT_B "x"), 32);
	assert_int_equal(stat(&c, STATS_INDEX_STALE), 1);
	buf_free(&b5);
	buf_free(&b6);
	end(&c);
}

static void orphans_and_gaps_and_another_name_deny_it(void **state)
{
	struct scene c;

	for (int i = 0; i < 4; i++) {
		start(&c, false, 60 * NS_PER_S);
		send_seq(&c, 5, stored(0, 10, TEXT_A, BLOCK, NULL));
		until(predicted(&c, TEXT_A "x") == 32);
		again(&c, false, 60 * NS_PER_S);
		until(predicted(&c, TEXT_A "x") == 32);
		if (i == 0)
			send_seq(&c, 6, stored(777, 20, TEXT_B, BLOCK, NULL));
		else if (i == 1)
			send_seq(&c, 8, stored(0, 20, TEXT_B, BLOCK, NULL));
		else if (i == 2)
			events_rebase(c.e, c.p, "another/model");
		else
			send_seq(&c, 5, stored(0, 20, TEXT_B, BLOCK, NULL));
		until(predicted(&c, TEXT_A "x") == 0);
		end(&c);
	}
}

/* Written while events come; a pod goes in the middle of it. */
static void it_is_written_under_way(void **state)
{
	struct index_secrets secrets;
	struct scene c;

	start(&c, false, 10 * NS_PER_MS);
	for (unsigned i = 0; i < 60; i++) {
		send_seq(&c, i, stored(0, 10 + 2 * i, i % 2 ? TEXT_A : TEXT_B, BLOCK, NULL));
		usleep(5000);
	}
	until(stat(&c, STATS_INDEX_SAVED) > 2);
	assert_int_equal(stat(&c, STATS_INDEX_SAVE_FAIL), 0);
	index_file_close(kept(&secrets));
	send_seq(&c, 60, stored(0, 500, TEXT_C, BLOCK, NULL));
	usleep(15000);
	end(&c);
	index_file_close(kept(&secrets));
}

static void where_it_cannot_be_written_that_is_counted(void **state)
{
	char was[sizeof(path)];
	struct scene c;

	memcpy(was, path, sizeof(was));
	strcpy(path, "/nowhere/kept");
	start(&c, false, 10 * NS_PER_MS);
	send_seq(&c, 0, stored(0, 10, TEXT_A, BLOCK, NULL));
	until(stat(&c, STATS_INDEX_SAVE_FAIL) > 0);
	assert_int_equal(predicted(&c, TEXT_A "x"), 32);
	end(&c);
	memcpy(path, was, sizeof(was));
}

static off_t kept_bytes(void)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	off_t n = lseek(fd, 0, SEEK_END);

	assert_true(fd >= 0 && n > 0);
	close(fd);
	return n;
}

/* A process that ends before it knows its pods leaves the file; one that has heard of others only copies it. */
static void what_nobody_came_for_stays(void **state)
{
	struct index_secrets secrets;
	struct events_keep keep;
	struct stats st = { 0 };
	off_t was;
	struct kvindex *x;
	struct events *e;
	struct scene c;
	struct qsbr q;

	start(&c, false, 60 * NS_PER_S);
	send_seq(&c, 5, stored(0, 10, TEXT_A, BLOCK, NULL));
	until(predicted(&c, TEXT_A "x") == 32);
	end_old(&c);
	for (unsigned heard = 0; heard < 2; heard++) {
		was = kept_bytes();
		keep = keep_of(kept(&secrets), 60 * NS_PER_S);
		qsbr_init(&q, 1);
		x = index_new_with(&q, 64 << 20, 8, &secrets);
		e = events_start(x, &st, &keep);
		assert_non_null(e);
		atomic_fetch_add(&st.v[STATS_EVENT_BATCHES], heard);
		events_stop(e);
		index_free(x);
		assert_int_equal(kept_bytes(), was);
		assert_int_equal(st.v[STATS_INDEX_SAVED], heard);
	}
	keep = keep_of(kept(&secrets), 60 * NS_PER_S);
	memset(&c.st, 0, sizeof(c.st));
	begin_gateway(&c, false, vocab_bytes(), &keep, &secrets);
	until(predicted(&c, TEXT_A "x") == 32);
	end(&c);
}

static void two_do_not_write_at_once(void **state)
{
	struct scene c;
	char other[80];
	int fd;

	snprintf(other, sizeof(other), "%s.new", path);
	fd = open(other, O_RDWR | O_CREAT, 0600);
	assert_true(fd >= 0 && flock(fd, LOCK_EX) == 0 && write(fd, "half", 4) == 4);
	start(&c, false, 10 * NS_PER_MS);
	send_seq(&c, 0, stored(0, 10, TEXT_A, BLOCK, NULL));
	until(stat(&c, STATS_INDEX_SAVE_FAIL) > 0);
	assert_int_equal(lseek(fd, 0, SEEK_END), 4);
	close(fd);
	until(stat(&c, STATS_INDEX_SAVED) > 0);
	assert_int_equal(access(other, F_OK), -1);
	end(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_next_batch_proves_it),
		cmocka_unit_test(a_replay_from_there_proves_it),
		cmocka_unit_test(orphans_and_gaps_and_another_name_deny_it),
		cmocka_unit_test(it_is_written_under_way),
		cmocka_unit_test(where_it_cannot_be_written_that_is_counted),
		cmocka_unit_test(what_nobody_came_for_stays),
		cmocka_unit_test(two_do_not_write_at_once),
	};
	int r;

	if (!mkdtemp(dir))
		return 1;
	snprintf(path, sizeof(path), "%s/kept", dir);
	r = cmocka_run_group_tests(tests, NULL, NULL);
	unlink(path);
	rmdir(dir);
	return r;
}

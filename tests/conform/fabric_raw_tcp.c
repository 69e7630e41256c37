/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/conform/fabric_raw_tcp.c - strangers and liars on the tcp backend's port, speaking raw bytes.
 *
 * A live link between nodes 0 and 1 carries messages all the time and must not notice.
 */
#include "tests/conform/fabric_raw.h"

#include "base/rng.h"
#include "interconnect/core/frame.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int connect_local(const char *name)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name));
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	memcpy(sa.sun_path + 1, name, strlen(name));
	CHECK(fd >= 0 && !connect(fd, (struct sockaddr *)&sa, len));
	return fd;
}

int raw_connect(const char *address)
{
	struct sockaddr_in sa = { .sin_family = AF_INET };
	const char *colon = strrchr(address, ':');
	int fd;

	if (!strncmp(address, "shm:", 4))
		return connect_local(address + 4);
	fd = socket(AF_INET, SOCK_STREAM, 0);

	sa.sin_port = htons((uint16_t)atoi(colon + 1));
	sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	CHECK(fd >= 0 && !connect(fd, (struct sockaddr *)&sa, sizeof(sa)));
	return fd;
}

static uint64_t refused(struct end *e)
{
	struct ic_stats st;

	ic_stats(e->f, &st);
	return st.refused;
}

/* The live link works: a round of messages each way. */
void raw_live(struct end *e)
{
	unsigned a = e[0].got[1], b = e[1].got[0];

	for (unsigned i = 0; i < 20; i++)
		CHECK(!send_next(&e[0], 1) && !send_next(&e[1], 0));
	PUMP_FOR(e, 2, e[0].got[1] == a + 20 && e[1].got[0] == b + 20, 10 * NS_PER_S);
	CHECK(!e[0].downs && !e[1].downs);
}

void raw_live_open(struct end e[2])
{
	end_open(&e[0], 0, 3, 1, 77);
	end_open(&e[1], 1, 3, 1, 77);
	ends_join(e, 2);
}

/* Sends bytes, expects the other side to count one refusal and to close. */
static void expect_refusal(struct end *e, const uint8_t *bytes, size_t len)
{
	uint64_t before = refused(&e[0]);
	int fd = raw_connect(e[0].address);
	uint8_t sink[256];

	CHECK(send(fd, bytes, len, MSG_NOSIGNAL) == (ssize_t)len);
	PUMP_FOR(e, 2, refused(&e[0]) == before + 1, 10 * NS_PER_S);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	for (;;) {
		ssize_t n = recv(fd, sink, sizeof(sink), 0);

		if (n == 0 || (n < 0 && errno != EAGAIN))
			break;
		pump_once(e, 2);
	}
	close(fd);
	raw_live(e);
}

void tcp_garbage_handshakes(void)
{
	struct rng r = { .state = 42 };
	struct ic_hello h = { .kind = IC_HELLO, .vm_id = 77, .from = 2, .to = 0 };
	uint8_t bytes[2000];
	struct end e[2];
	size_t len;
	int fd;

	raw_live_open(e);
	for (unsigned round = 0; round < 50; round++) {
		for (size_t i = 0; i < sizeof(bytes); i++)
			bytes[i] = (uint8_t)rng_next(&r);
		expect_refusal(e, bytes, 1 + rng_below(&r, sizeof(bytes)));
	}
	expect_refusal(e, (const uint8_t *)"GET / HTTP/1.1\r\n\r\n", 18);
	/* Well-formed records in the wrong place, or with impossible nodes. */
	h.from = 0;
	expect_refusal(e, bytes, ic_hello_encode(&h, bytes));
	h.from = 200;
	expect_refusal(e, bytes, ic_hello_encode(&h, bytes));
	h.kind = IC_PROOF;
	expect_refusal(e, bytes, ic_hello_encode(&h, bytes));
	h.kind = IC_ACCEPT;
	expect_refusal(e, bytes, ic_hello_encode(&h, bytes));
	/* Half a record, then gone: nothing to refuse, nothing left behind. */
	h = (struct ic_hello){ .kind = IC_HELLO, .vm_id = 77, .from = 2, .to = 0 };
	len = ic_hello_encode(&h, bytes);
	for (size_t cut = 0; cut < len; cut += 7) {
		fd = raw_connect(e[0].address);
		CHECK(send(fd, bytes, cut, MSG_NOSIGNAL) == (ssize_t)cut);
		close(fd);
		raw_live(e);
	}
	ends_close(e, 2);
}

void tcp_another_version(void)
{
	struct ic_hello h = { .kind = IC_HELLO, .vm_id = 77, .from = 2, .to = 0 };
	uint8_t bytes[IC_HELLO_MAX];
	struct end e[2];
	size_t len = ic_hello_encode(&h, bytes);

	raw_live_open(e);
	bytes[4]++;
	expect_refusal(e, bytes, len);
	ends_close(e, 2);
}

/* A byte at a time, so that nothing after the record is taken. */
static ssize_t recv_byte(int fd, uint8_t *byte, int *passed)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = { byte, 1 };
	struct msghdr mh = { .msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = &control,
			     .msg_controllen = sizeof(control) };
	ssize_t n = recvmsg(fd, &mh, 0);

	if (n > 0 && CMSG_FIRSTHDR(&mh))
		memcpy(passed, CMSG_DATA(CMSG_FIRSTHDR(&mh)), sizeof(int));
	return n;
}

void raw_read_record(struct end *e, int fd, struct ic_hello *out, int *passed)
{
	uint8_t bytes[IC_HELLO_MAX];
	enum ic_refusal why;
	size_t len = 0;
	uint64_t until = clock_now_ns() + 10 * NS_PER_S;

	*passed = -1;
	fcntl(fd, F_SETFL, O_NONBLOCK);
	while (!ic_hello_decode(bytes, len, out, &why)) {
		ssize_t n = recv_byte(fd, bytes + len, passed);

		len += n > 0 ? (size_t)n : 0;
		CHECK(n != 0 && len < sizeof(bytes) && clock_now_ns() < until);
		pump_once(e, 2);
	}
}

static void hmac(char side, const struct ic_hello *hello, const struct ic_hello *challenge,
		 uint8_t mac[IC_HELLO_MAC])
{
	uint8_t key[IC_KEY_BYTES], text[IC_HELLO_SIGNED_MAX], out[EVP_MAX_MD_SIZE];
	unsigned len = 0;

	memset(key, 1, sizeof(key));
	CHECK(HMAC(EVP_sha256(), key, sizeof(key), text,
		   ic_hello_signed(side, hello, challenge, text), out, &len));
	memcpy(mac, out, IC_HELLO_MAC);
}

int raw_proven(struct end *e, uint32_t *epoch)
{
	struct ic_hello h = { .kind = IC_HELLO, .vm_id = 77, .from = 2, .to = 0 }, c, a;
	struct ic_hello proof = { .kind = IC_PROOF };
	uint8_t bytes[IC_HELLO_MAX], mac[IC_HELLO_MAC];
	int fd, passed;

	CHECK(!ic_join(e[0].f, 2, "127.0.0.1:1"));
	for (unsigned i = 0; i < 200; i++)
		pump_once(e, 2);
	fd = raw_connect(e[0].address);
	send(fd, bytes, ic_hello_encode(&h, bytes), MSG_NOSIGNAL);
	raw_read_record(e, fd, &c, &passed);
	CHECK(c.kind == IC_CHALLENGE);
	hmac('A', &h, &c, mac);
	CHECK(!memcmp(mac, c.mac, sizeof(mac))); /* the acceptor proves itself too */
	hmac('C', &h, &c, proof.mac);
	send(fd, bytes, ic_hello_encode(&proof, bytes), MSG_NOSIGNAL);
	raw_read_record(e, fd, &a, &passed);
	CHECK(a.kind == IC_ACCEPT);
	*epoch = c.epoch;
	return fd;
}

static int proven(struct end *e, uint32_t *epoch)
{
	unsigned ups = e[0].ups;
	int fd = raw_proven(e, epoch);

	PUMP_FOR(e, 2, e[0].ups == ups + 1, 10 * NS_PER_S);
	return fd;
}

/* One good frame arrives, then `bytes` cost the liar its link and nobody else anything. */
static void liar(struct end *e, void (*spoil)(uint8_t *frame))
{
	struct ic_frame fr = { .port = IC_PORT_TEST, .body_len = 8 };
	uint8_t bytes[IC_FRAME_HEADER + 8] = { 0 };
	uint64_t before = refused(&e[0]);
	unsigned downs = e[0].downs;
	uint32_t epoch;
	int fd = proven(e, &epoch);

	fr.epoch = epoch;
	fr.seq = 0;
	ic_frame_encode(&fr, bytes);
	spoil(bytes);
	send(fd, bytes, sizeof(bytes), MSG_NOSIGNAL);
	PUMP_FOR(e, 2, e[0].downs == downs + 1, 10 * NS_PER_S);
	CHECK(refused(&e[0]) == before + 1 && !e[0].got[2] && e[0].is_up[1] && !e[1].downs);
	close(fd);
}

static void spoil_mark(uint8_t *f)
{
	f[0]++;
}
static void spoil_port(uint8_t *f)
{
	f[1] = IC_PORTS;
}
static void spoil_body(uint8_t *f)
{
	f[3] = 0x80;
}
static void spoil_data(uint8_t *f)
{
	f[5] = 0x80;
}
static void spoil_zero(uint8_t *f)
{
	f[6] = 1;
}
static void spoil_epoch(uint8_t *f)
{
	f[8]++;
}
static void spoil_seq(uint8_t *f)
{
	f[12]++;
}

void tcp_garbage_frames(void)
{
	static void (*const spoils[])(uint8_t *) = { spoil_mark, spoil_port, spoil_body,
						     spoil_data, spoil_zero, spoil_epoch,
						     spoil_seq };
	struct ic_frame fr = { .port = IC_PORT_TEST, .body_len = 8 };
	uint8_t bytes[IC_FRAME_HEADER + 8] = { 0 };
	unsigned downs;
	uint32_t epoch;
	struct end e[2];
	int fd;

	raw_live_open(e);
	for (size_t i = 0; i < ARRAY_LEN(spoils); i++)
		liar(e, spoils[i]);
	/* A frame cut off in the middle is the end of a peer, not a refusal. */
	downs = e[0].downs;
	fd = proven(e, &epoch);
	fr.epoch = epoch;
	ic_frame_encode(&fr, bytes);
	send(fd, bytes, sizeof(bytes) - 3, MSG_NOSIGNAL);
	close(fd);
	PUMP_FOR(e, 2, e[0].downs == downs + 1, 10 * NS_PER_S);
	CHECK(!e[0].got[2]);
	e[0].downs = 0; /* those of node 2 */
	raw_live(e);
	ends_close(e, 2);
}

/* More silent connections than there are places: the true peer still gets in once they time out. */
void tcp_silent_strangers(void)
{
	struct end e[3];
	int fd[60];

	raw_live_open(e);
	end_open(&e[2], 2, 3, 1, 77);
	for (size_t i = 0; i < ARRAY_LEN(fd); i++)
		fd[i] = raw_connect(e[0].address);
	raw_live(e);
	CHECK(!ic_join(e[0].f, 2, e[2].address) && !ic_join(e[2].f, 0, e[0].address));
	PUMP_FOR(e, 3, e[0].is_up[2] && e[2].is_up[0], 10 * NS_PER_S);
	raw_live(e);
	for (size_t i = 0; i < ARRAY_LEN(fd); i++)
		close(fd[i]);
	ends_close(e, 3);
}

/* Uses every signal and timer call of the usual libraries and says which one
 * did not do what its manual page says. Prints "ok" and nothing else. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/select.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/timex.h>
#include <sys/times.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int failures;
#define CHECK(x) do { if (!(x)) { fprintf(stderr, "line %d: %s: %s\n", __LINE__, #x, strerror(errno)); failures++; } } while (0)

static volatile sig_atomic_t seen, value, on_alternate;
static char *alternate;
static sigjmp_buf back;

static void note(int s) { seen = s; }
static void info(int s, siginfo_t *i, void *context)
{
	char here;
	(void)context;
	seen = s;
	value = i->si_value.sival_int;
	on_alternate = &here >= alternate && &here < alternate + 65536;
}
static void leap(int s) { siglongjmp(back, s); }
static void *park(void *set) { int s = 0; sigwait(set, &s); return (void *)(intptr_t)s; }
static void notified(union sigval v) { (void)syscall(SYS_write, v.sival_int, "x", 1); }

static const struct timespec tick = {0, 1000000}, ages = {10, 0}, never = {0, 0};
static const struct itimerspec once = {{0, 0}, {0, 1000000}};

static void handlers(void)
{
	struct sigaction a = {.sa_handler = note}, old;
	CHECK(!sigaction(SIGUSR1, &a, NULL) && !sigaction(SIGALRM, &a, NULL) && !sigaction(SIGVTALRM, &a, NULL) && !sigaction(SIGPROF, &a, NULL));
	CHECK(!raise(SIGUSR1) && seen == SIGUSR1);
	seen = 0; CHECK(!kill(getpid(), SIGUSR1) && seen == SIGUSR1);
	seen = 0; CHECK(!syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), SIGUSR1) && seen == SIGUSR1);
	seen = 0; CHECK(!syscall(SYS_tkill, syscall(SYS_gettid), SIGUSR1) && seen == SIGUSR1);
	seen = 0; CHECK(!pthread_kill(pthread_self(), SIGUSR1) && seen == SIGUSR1);
	seen = 0; CHECK(!killpg(0, 0));
	CHECK(signal(SIGUSR2, SIG_IGN) == SIG_DFL && !raise(SIGUSR2) && !seen);

	alternate = malloc(65536);
	stack_t stack = {.ss_sp = alternate, .ss_size = 65536};
	CHECK(!sigaltstack(&stack, NULL));
	struct sigaction b = {.sa_sigaction = info, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART};
	CHECK(!sigaction(SIGRTMIN, &b, &old) && old.sa_handler == SIG_DFL);
	union sigval v = {.sival_int = 42};
	CHECK(!sigqueue(getpid(), SIGRTMIN, v) && seen == SIGRTMIN && value == 42 && on_alternate);
	v.sival_int = 43;
	CHECK(!pthread_sigqueue(pthread_self(), SIGRTMIN, v) && value == 43);

	struct sigaction c = {.sa_handler = leap, .sa_flags = SA_NODEFER};
	CHECK(!sigaction(SIGSEGV, &c, NULL));
	if (!sigsetjmp(back, 1)) {
		*(volatile int *)(uintptr_t)(getpid() == 0) = 1;
		CHECK(!"a null pointer could be written");
	}
	signal(SIGSEGV, SIG_DFL);
}

static void masks(void)
{
	sigset_t set, old, pending;
	siginfo_t i;
	int s = 0;
	sigemptyset(&set); sigaddset(&set, SIGUSR1); sigaddset(&set, SIGRTMIN + 1);
	CHECK(!sigprocmask(SIG_BLOCK, &set, &old) && !pthread_sigmask(SIG_BLOCK, &set, NULL));
	seen = 0; CHECK(!raise(SIGUSR1) && !seen && !sigpending(&pending) && sigismember(&pending, SIGUSR1));
	CHECK(sigtimedwait(&set, &i, &ages) == SIGUSR1 && i.si_pid == getpid());
	CHECK(sigtimedwait(&set, &i, &never) == -1 && errno == EAGAIN);
	CHECK(!raise(SIGUSR1) && sigwaitinfo(&set, &i) == SIGUSR1);
	CHECK(!raise(SIGUSR1) && !sigwait(&set, &s) && s == SIGUSR1);
	CHECK(!raise(SIGUSR1) && sigsuspend(&old) == -1 && errno == EINTR && seen == SIGUSR1);

	pthread_t t; void *got;
	CHECK(!pthread_create(&t, NULL, park, &set) && !pthread_kill(t, SIGRTMIN + 1) && !pthread_join(t, &got) && (intptr_t)got == SIGRTMIN + 1);

	int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	struct signalfd_siginfo si;
	CHECK(fd >= 0 && read(fd, &si, sizeof si) == -1 && errno == EAGAIN);
	CHECK(!raise(SIGUSR1) && read(fd, &si, sizeof si) == sizeof si && si.ssi_signo == SIGUSR1);
	close(fd);
	CHECK(!sigprocmask(SIG_SETMASK, &old, NULL));
}

static void timers(void)
{
	struct itimerval soon = {{0, 0}, {0, 1000}}, left;
	int which[] = {ITIMER_REAL, ITIMER_VIRTUAL, ITIMER_PROF}, sig[] = {SIGALRM, SIGVTALRM, SIGPROF};
	for (int i = 0; i < 3; i++) {
		seen = 0;
		CHECK(!setitimer(which[i], &soon, NULL) && !getitimer(which[i], &left));
		while (seen != sig[i]) ;
	}
	CHECK(alarm(100) == 0 && alarm(0) > 90);
	/* Again and again: a first one may come before the call that it is to end. */
	seen = 0; CHECK(!ualarm(1000, 1000) && pause() == -1 && errno == EINTR && seen == SIGALRM);
	CHECK(ualarm(0, 0) <= 1000);

	int ends[2];
	CHECK(!pipe2(ends, O_CLOEXEC));
	struct sigevent by_signal = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN, .sigev_value.sival_int = 7};
	struct sigevent by_thread = {.sigev_notify = SIGEV_THREAD, .sigev_notify_function = notified, .sigev_value.sival_int = ends[1]};
	struct itimerspec rest;
	timer_t t; char c;
	seen = 0; value = 0;
	CHECK(!timer_create(CLOCK_MONOTONIC, &by_signal, &t) && !timer_settime(t, 0, &once, NULL));
	while (seen != SIGRTMIN) ;
	CHECK(value == 7 && !timer_gettime(t, &rest) && timer_getoverrun(t) == 0 && !timer_delete(t));
	CHECK(!timer_create(CLOCK_REALTIME, &by_thread, &t) && !timer_settime(t, 0, &once, NULL));
	CHECK(read(ends[0], &c, 1) == 1 && !timer_delete(t));
	CHECK(!timer_create(CLOCK_PROCESS_CPUTIME_ID, &by_signal, &t) && !timer_delete(t));
	CHECK(!timer_create(CLOCK_BOOTTIME, &by_signal, &t) && !timer_delete(t));
	close(ends[0]); close(ends[1]);
}

static void clocks(void)
{
	struct timespec ts, rest = {0, 0}, until;
	struct timeval tv;
	clockid_t all[] = {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_PROCESS_CPUTIME_ID, CLOCK_THREAD_CPUTIME_ID, CLOCK_MONOTONIC_RAW,
		CLOCK_REALTIME_COARSE, CLOCK_MONOTONIC_COARSE, CLOCK_BOOTTIME, CLOCK_TAI};
	for (unsigned i = 0; i < sizeof all / sizeof *all; i++)
		CHECK(!clock_gettime(all[i], &ts) && !syscall(SYS_clock_gettime, all[i], &ts) && !clock_getres(all[i], &ts));
	clockid_t own;
	CHECK(!clock_getcpuclockid(getpid(), &own) && !clock_gettime(own, &ts) && !pthread_getcpuclockid(pthread_self(), &own));
	CHECK(!gettimeofday(&tv, NULL) && time(NULL) > 1600000000 && clock() != (clock_t)-1 && times(&(struct tms){0}) != (clock_t)-1);
	CHECK(!nanosleep(&tick, &rest) && !usleep(1000) && !syscall(SYS_nanosleep, &tick, &rest));
	CHECK(!clock_nanosleep(CLOCK_MONOTONIC, 0, &tick, &rest) && !clock_nanosleep(CLOCK_REALTIME, 0, &tick, &rest));
	CHECK(!clock_gettime(CLOCK_MONOTONIC, &until) && !clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL));
	seen = 0;
	CHECK(!ualarm(1000, 1000) && nanosleep(&ages, &rest) == -1 && errno == EINTR && seen == SIGALRM && rest.tv_sec + rest.tv_nsec > 0);
	CHECK(ualarm(0, 0) <= 1000);
	struct timex tx = {0};
	CHECK(adjtimex(&tx) >= 0 || errno == EPERM);
}

static void waits(void)
{
	int p[2], event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
	uint64_t n;
	sigset_t none; sigemptyset(&none);
	CHECK(!pipe(p) && event >= 0 && timer >= 0 && eventfd(0, 0) >= 0);
	CHECK(!timerfd_settime(timer, 0, &once, NULL) && !timerfd_gettime(timer, &(struct itimerspec){0}));
	struct pollfd fds[] = {{timer, POLLIN, 0}, {event, POLLIN, 0}};
	CHECK(poll(fds, 2, 10000) == 1 && fds[0].revents == POLLIN && read(timer, &n, 8) == 8 && n == 1);
	CHECK(!eventfd_write(event, 5) && ppoll(fds, 2, &ages, &none) == 1 && fds[1].revents == POLLIN);

	fd_set r; struct timeval tv = {10, 0};
	FD_ZERO(&r); FD_SET(event, &r); CHECK(select(event + 1, &r, NULL, NULL, &tv) == 1);
	FD_ZERO(&r); FD_SET(event, &r); CHECK(pselect(event + 1, &r, NULL, NULL, &ages, &none) == 1);

	int e = epoll_create1(EPOLL_CLOEXEC), e2 = epoll_create(1), kinds[] = {event, timer, p[0]};
	struct epoll_event ev = {.events = EPOLLIN}, got[4];
	for (int i = 0; i < 3; i++) CHECK(!epoll_ctl(e, EPOLL_CTL_ADD, kinds[i], &ev));
	CHECK(epoll_wait(e, got, 4, 10000) == 1 && epoll_pwait(e, got, 4, 10000, &none) == 1 && e2 >= 0);
	CHECK(!epoll_ctl(e, EPOLL_CTL_MOD, event, &ev) && !epoll_ctl(e, EPOLL_CTL_DEL, timer, NULL));
#ifdef SYS_epoll_pwait2
	CHECK(syscall(SYS_epoll_pwait2, e, got, 4, &ages, NULL, 0) == 1 || errno == ENOSYS);
#endif
	CHECK(!eventfd_read(event, &n) && n == 5 && eventfd_read(event, &n) == -1 && errno == EAGAIN);

	int watch = inotify_init1(IN_CLOEXEC);
	CHECK(watch >= 0 && inotify_add_watch(watch, ".", IN_CREATE) >= 0);
	close(p[0]); close(p[1]); close(e); close(e2); close(event); close(timer); close(watch);
}

static void children(void)
{
	int status; siginfo_t i;
	pid_t child = fork();
	if (!child) { raise(SIGSTOP); _exit(3); }
	CHECK(waitpid(child, &status, WUNTRACED) == child && WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP);
	CHECK(!kill(child, SIGCONT) && waitpid(child, &status, WCONTINUED) == child && (WIFCONTINUED(status) || WIFEXITED(status)));
	if (WIFCONTINUED(status)) CHECK(!waitid(P_PID, child, &i, WEXITED) && i.si_status == 3);
	if (!(child = fork())) { struct timespec t = ages; nanosleep(&t, &t); _exit(0); }
	CHECK(!kill(child, SIGTERM) && wait4(child, &status, 0, NULL) == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
	if (!(child = vfork())) _exit(4);
	CHECK(waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 4);
#ifdef SYS_pidfd_open
	if (!(child = fork())) { pause(); _exit(0); }
	int fd = syscall(SYS_pidfd_open, child, 0);
	if (fd >= 0) {
		struct pollfd p = {fd, POLLIN, 0};
		CHECK(!syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0) && poll(&p, 1, 10000) == 1);
	} else {
		CHECK(errno == ENOSYS);
		kill(child, SIGKILL);
	}
	CHECK(waitpid(child, &status, 0) == child);
#endif
}

int main(void)
{
	handlers();
	masks();
	timers();
	clocks();
	waits();
	children();
	if (!failures) puts("ok");
	return failures != 0;
}

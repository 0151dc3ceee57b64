/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The operator's policy in Python (qemu_hv/policy): whether a parent may create a partition or a VP, what a new
 * partition is called, may do and may have of memory.
 *
 * Python runs on a thread of its own, which takes neither the BQL nor any lock of the core, so a policy that hangs
 * holds up nobody but the VP that asked: its hypercall is executed again and again until there is an answer or the
 * deadline has passed. The interpreter is loaded when the first question comes. Only functions of Python's stable ABI
 * are used, and they are looked up at run time, so one module fits every Python.
 */
#include "module.h"

#include <dlfcn.h>
#include <wchar.h>

#include "qapi/error.h"
#include "qobject/qdict.h"
#include "qobject/qjson.h"
#include "qobject/qstring.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"

#define DEADLINE_NS (5 * NANOSECONDS_PER_SECOND) /* of the host's time */
#define INTERPRETER_VARIABLE "QEMU_HV_PYTHON" /* names the interpreter whose packages are used */
#define DEFAULT_INTERPRETER "python3"

enum slot_state { SLOT_FREE, SLOT_ASKED, SLOT_ANSWERED };

/* The question a VP's hypercall waits for; one at a time. The policy's lock. */
struct slot {
    enum slot_state state;
    bool late; /* the asker was refused because the deadline had passed */
    uint64_t number; /* tells an answer that nobody waits for any more */
    struct hv_admission question, answer;
    bool allowed;
    int64_t deadline;
};

struct mshv_policy {
    const char *name;
    QemuMutex lock;
    QemuCond asked;
    uint64_t last_number;
    struct slot slots[HV_MAX_VPS];
};

/* -- Python, as much of it as is needed -- */

typedef struct object *py_object;
static struct {
    void *library;
    void (*SetProgramName)(const wchar_t *name);
    void (*InitializeEx)(int signals);
    py_object (*ImportModule)(const char *name);
    py_object (*CallMethod)(py_object object, const char *name, const char *format, ...);
    const char *(*AsUTF8)(py_object object, ssize_t *size);
    void (*DecRef)(py_object object);
    void (*Print)(void);
    py_object host; /* module qemu_hv.policy.host */
} python;

static bool look_up(const char *name, void *function, Error **errp)
{
    void *found = dlsym(python.library, name);

    if (!found) {
        error_setg(errp, "the Python library has no function %s", name);
        return false;
    }
    memcpy(function, &found, sizeof(found));
    return true;
}

/* Ask the interpreter where its library is. Two lines: its own path, the library's. */
static bool find_library(char **executable, char **library, Error **errp)
{
    static const char script[] = "import os, sys, sysconfig\n"
                                 "get = sysconfig.get_config_var\n"
                                 "names = [get('INSTSONAME') or '', get('LDLIBRARY') or '']\n"
                                 "folders = [get('LIBDIR') or '', os.path.join(get('LIBDIR') or '', "
                                 "get('MULTIARCH') or '')]\n"
                                 "paths = [os.path.join(d, n) for d in folders for n in names if '.so' in n]\n"
                                 "print(sys.executable)\n"
                                 "print(next((p for p in paths if os.path.exists(p)), ''))\n";
    const char *interpreter = g_getenv(INTERPRETER_VARIABLE) ?: DEFAULT_INTERPRETER;
    char *arguments[] = {(char *)interpreter, (char *)"-c", (char *)script, NULL};
    g_autofree char *output = NULL;
    g_autoptr(GError) gerror = NULL;
    g_auto(GStrv) lines = NULL;
    int status;

    if (!g_spawn_sync(NULL, arguments, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, &output, NULL, &status, &gerror)) {
        error_setg(errp,
                   "'%s' cannot be run (%s); name an interpreter in the environment variable " INTERPRETER_VARIABLE
                   " or use policy=none",
                   interpreter, gerror->message);
        return false;
    }
    lines = g_strsplit(output, "\n", 3);
    if (g_strv_length(lines) < 2 || !*lines[1]) {
        error_setg(errp, "'%s' has no shared library (libpython3); install it or use policy=none", interpreter);
        return false;
    }
    *executable = g_strdup(lines[0]);
    *library = g_strdup(lines[1]);
    return true;
}

static bool start_python(const char *policy, Error **errp)
{
    g_autofree char *executable = NULL, *library = NULL;
    wchar_t *name;
    size_t size;
    py_object loaded;

    if (!find_library(&executable, &library, errp))
        return false;
    /* Python's own extension modules expect its symbols to be global. */
    python.library = dlopen(library, RTLD_NOW | RTLD_GLOBAL);
    if (!python.library) {
        error_setg(errp, "%s cannot be loaded: %s", library, dlerror());
        return false;
    }
    if (!look_up("Py_SetProgramName", &python.SetProgramName, errp) ||
        !look_up("Py_InitializeEx", &python.InitializeEx, errp) ||
        !look_up("PyImport_ImportModule", &python.ImportModule, errp) ||
        !look_up("PyObject_CallMethod", &python.CallMethod, errp) ||
        !look_up("PyUnicode_AsUTF8AndSize", &python.AsUTF8, errp) || !look_up("Py_DecRef", &python.DecRef, errp) ||
        !look_up("PyErr_Print", &python.Print, errp))
        return false;
    size = strlen(executable) + 1;
    name = g_new0(wchar_t, size); /* Python keeps the pointer */
    if (mbstowcs(name, executable, size) == (size_t)-1) {
        error_setg(errp, "the path '%s' cannot be converted to the locale's encoding", executable);
        return false;
    }
    python.SetProgramName(name); /* so that it finds the packages of the interpreter's environment */
    python.InitializeEx(0);
    python.host = python.ImportModule("qemu_hv.policy.host");
    if (!python.host) {
        python.Print();
        error_setg(errp, "%s has no package qemu_hv (see above); install it there or use policy=none", executable);
        return false;
    }
    loaded = python.CallMethod(python.host, "load", "s", policy);
    if (!loaded) {
        python.Print();
        error_setg(errp, "the policy '%s' cannot be loaded (see above)", policy);
        return false;
    }
    python.DecRef(loaded);
    return true;
}

/* -- Its thread -- */

static const char *const kinds[] = {
    [HV_ADMIT_PARTITION] = "partition",
    [HV_ADMIT_VP] = "vp",
};

static char *describe(const struct hv_admission *question)
{
    return g_strdup_printf("{\"kind\": \"%s\", \"parent\": %" PRIu64 ", \"partition\": %" PRIu64
                           ", \"depth\": %u, \"partitions\": %u, \"vps\": %u, \"privileges\": %" PRIu64
                           ", \"mapped_pages\": %" PRIu64 ", \"promised_pages\": %" PRIu64 "}",
                           kinds[question->what], question->parent, question->partition, question->depth,
                           question->partitions, question->vps, question->privileges, question->mapped_pages,
                           question->promised_pages);
}

/* A number that may be absent, as a decimal string; false: it is no number. */
static bool understand_number(const QDict *dict, const char *key, uint64_t *number)
{
    const char *text = qdict_get_try_str(dict, key);

    return !text || qemu_strtou64(text, NULL, 10, number) == 0;
}

/* {"allow": bool, "privileges": number, "page_limit": number, "name": string}; anything else denies. */
static bool understand(const char *text, struct hv_admission *answer)
{
    Error *err = NULL;
    QObject *object = qobject_from_json(text, &err);
    QDict *dict = qobject_to(QDict, object);
    bool allowed;

    if (!dict) {
        error_free(err);
        qobject_unref(object);
        return false;
    }
    allowed = qdict_get_try_bool(dict, "allow", false) && understand_number(dict, "privileges", &answer->privileges) &&
              understand_number(dict, "page_limit", &answer->page_limit);
    if (qdict_get_try_str(dict, "name"))
        g_strlcpy(answer->name, qdict_get_try_str(dict, "name"), sizeof(answer->name));
    qobject_unref(object);
    return allowed;
}

static bool decide(struct hv_admission *admission)
{
    g_autofree char *question = describe(admission);
    py_object reply = python.CallMethod(python.host, "decide", "s", question);
    const char *text = reply ? python.AsUTF8(reply, NULL) : NULL;
    bool allowed = text && understand(text, admission);

    if (!text)
        python.Print();
    if (reply)
        python.DecRef(reply);
    return allowed;
}

static struct slot *next_question(struct mshv_policy *policy)
{
    struct slot *next = NULL;

    for (size_t i = 0; i < ARRAY_SIZE(policy->slots); i++) {
        struct slot *slot = &policy->slots[i];

        if (slot->state == SLOT_ASKED && (!next || slot->number < next->number))
            next = slot;
    }
    return next;
}

static void *policy_thread(void *opaque)
{
    struct mshv_policy *policy = opaque;
    Error *err = NULL;
    bool works = start_python(policy->name, &err);

    if (!works)
        error_reportf_err(err, "policy=%s: ", policy->name);
    qemu_mutex_lock(&policy->lock);
    for (;;) {
        struct slot *slot = next_question(policy);
        struct hv_admission admission;
        uint64_t number;
        bool allowed;

        if (!slot) {
            qemu_cond_wait(&policy->asked, &policy->lock);
            continue;
        }
        admission = slot->question;
        number = slot->number;
        qemu_mutex_unlock(&policy->lock);
        allowed = works && decide(&admission);
        qemu_mutex_lock(&policy->lock);
        if (slot->state != SLOT_ASKED || slot->number != number)
            continue; /* the asker has gone, or asks something else */
        slot->answer = admission;
        slot->allowed = allowed;
        slot->state = SLOT_ANSWERED;
    }
    return NULL;
}

/* -- Questions -- */

static bool same_question(const struct hv_admission *a, const struct hv_admission *b)
{
    return a->what == b->what && a->parent == b->parent && a->partition == b->partition;
}

static void ask(struct mshv_policy *policy, struct slot *slot, const struct hv_admission *question)
{
    slot->state = SLOT_ASKED;
    slot->number = ++policy->last_number;
    slot->question = *question;
    slot->deadline = qemu_clock_get_ns(QEMU_CLOCK_REALTIME) + DEADLINE_NS;
    qemu_cond_signal(&policy->asked);
}

static enum hv_progress look(struct mshv_policy *policy, struct slot *slot, struct hv_admission *admission)
{
    if (slot->state == SLOT_FREE || !same_question(&slot->question, admission))
        ask(policy, slot, admission);
    if (slot->state == SLOT_ASKED) {
        if (qemu_clock_get_ns(QEMU_CLOCK_REALTIME) < slot->deadline)
            return HV_PROGRESS_WAIT;
        slot->state = SLOT_FREE;
        warn_report("policy=%s: no answer within %d s about a %s for partition %" PRIu64 ", so it is denied",
                    policy->name, (int)(DEADLINE_NS / NANOSECONDS_PER_SECOND), kinds[admission->what],
                    admission->parent);
        return HV_PROGRESS_FAILED;
    }
    slot->state = SLOT_FREE;
    *admission = slot->answer;
    return slot->allowed ? HV_PROGRESS_DONE : HV_PROGRESS_FAILED;
}

enum hv_progress mshv_admit(void *context, hv_vp_handle caller, struct hv_admission *admission)
{
    MicrosoftHypervisor *s = context;
    enum hv_progress progress;

    if (!s->policy_state)
        return HV_PROGRESS_DONE;
    qemu_mutex_lock(&s->policy_state->lock);
    progress = look(s->policy_state, &s->policy_state->slots[caller], admission);
    qemu_mutex_unlock(&s->policy_state->lock);
    return progress;
}

/* -- The property: none, default, or FILE.py:CLASS -- */

bool mshv_policy_check(const char *name, Error **errp)
{
    g_autofree char *file = NULL;
    const char *colon;

    if (!name || g_str_equal(name, "none") || g_str_equal(name, "default"))
        return true;
    colon = strrchr(name, ':');
    if (!colon || colon == name || !colon[1]) {
        error_setg(errp, "policy=%s is none of: none, default, FILE.py:CLASS", name);
        return false;
    }
    file = g_strndup(name, (gsize)(colon - name));
    if (!g_file_test(file, G_FILE_TEST_IS_REGULAR)) {
        error_setg(errp, "policy=%s: there is no file '%s'", name, file);
        return false;
    }
    return true;
}

void mshv_policy_init(MicrosoftHypervisor *s)
{
    struct mshv_policy *policy;
    QemuThread thread;

    if (!s->policy || g_str_equal(s->policy, "none"))
        return;
    policy = g_new0(struct mshv_policy, 1);
    policy->name = s->policy;
    qemu_mutex_init(&policy->lock);
    qemu_cond_init(&policy->asked);
    s->policy_state = policy;
    qemu_thread_create(&thread, "hv-policy", policy_thread, policy, QEMU_THREAD_DETACHED);
}

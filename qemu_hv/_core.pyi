# SPDX-License-Identifier: GPL-2.0-or-later
"""The hypervisor's core on a simulated platform: Python is the machine.

Memory is a sparse buffer, time is a TSC that the caller sets, interrupts land in a small model of the local
APIC, and everything else that the core asks of its machine is recorded. Times are in units of 100 ns of
reference time unless they are called ``tsc``, which are ticks. Nothing here runs by itself: a method returns
when the instruction or event that it stands for is over.

The enumerations and rows come from the tables of csrc/hv/tlfs; tests/core/test_stub.py checks that this file
tells the same.
"""

from collections.abc import Sequence
from enum import IntEnum
from typing import Final, TypedDict, type_check_only

class Status(IntEnum):
    """Hypercall status codes (TLFS appendix C)."""

    SUCCESS = 0x0
    INVALID_HYPERCALL_CODE = 0x2
    INVALID_HYPERCALL_INPUT = 0x3
    INVALID_ALIGNMENT = 0x4
    INVALID_PARAMETER = 0x5
    ACCESS_DENIED = 0x6
    INVALID_PARTITION_STATE = 0x7
    OPERATION_DENIED = 0x8
    UNKNOWN_PROPERTY = 0x9
    PROPERTY_VALUE_OUT_OF_RANGE = 0xA
    INSUFFICIENT_MEMORY = 0xB
    PARTITION_TOO_DEEP = 0xC
    INVALID_PARTITION_ID = 0xD
    INVALID_VP_INDEX = 0xE
    NOT_FOUND = 0x10
    INVALID_PORT_ID = 0x11
    INVALID_CONNECTION_ID = 0x12
    INSUFFICIENT_BUFFERS = 0x13
    NOT_ACKNOWLEDGED = 0x14
    INVALID_VP_STATE = 0x15
    ACKNOWLEDGED = 0x16
    INVALID_SAVE_RESTORE_STATE = 0x17
    INVALID_SYNIC_STATE = 0x18
    OBJECT_IN_USE = 0x19
    INVALID_PROXIMITY_DOMAIN_INFO = 0x1A
    NO_DATA = 0x1B
    INACTIVE = 0x1C
    NO_RESOURCES = 0x1D
    FEATURE_UNAVAILABLE = 0x1E
    PARTIAL_PACKET = 0x1F
    INVALID_LP_INDEX = 0x41

class Privilege(IntEnum):
    """Bits of a partition's privilege mask (TLFS 5.2.3)."""

    AccessVpRunTimeMsr = 0
    AccessPartitionReferenceCounter = 1
    AccessSynicMsrs = 2
    AccessSyntheticTimerMsrs = 3
    AccessApicMsrs = 4
    AccessHypercallMsrs = 5
    AccessVpIndex = 6
    AccessResetMsr = 7
    AccessStatsMsr = 8
    AccessPartitionReferenceTsc = 9
    AccessGuestIdleMsr = 10
    AccessFrequencyMsrs = 11
    AccessTscInvariantControls = 15
    CreatePartitions = 32
    AccessPartitionId = 33
    AccessMemoryPool = 34
    AdjustMessageBuffers = 35
    PostMessages = 36
    SignalEvents = 37
    CreatePort = 38
    ConnectPort = 39
    AccessStats = 40
    Debugging = 43
    CpuManagement = 44
    ConfigureProfiler = 45

class Feature(IntEnum):
    """Bits of CPUID 0x40000003 EDX (TLFS 3.4)."""

    HypercallXmmInput = 4
    GuestIdleState = 5
    FrequencyMsrs = 8
    CrashMsrs = 10
    DirectSyntheticTimers = 19

class Recommendation(IntEnum):
    """Bits of CPUID 0x40000004 EAX (TLFS 3.4)."""

    UseHypercallForAddressSpaceSwitch = 0
    UseHypercallForLocalFlush = 1
    UseHypercallForRemoteFlush = 2
    UseApicMsrs = 3
    UseResetMsr = 4
    UseRelaxedTiming = 5
    DeprecateAutoEoi = 9
    UseClusterIpi = 10
    UseExProcessorMasks = 11

class Msr(IntEnum):
    """First index of each synthetic MSR or family of them (TLFS appendix H)."""

    GUEST_OS_ID = 0x40000000
    HYPERCALL = 0x40000001
    VP_INDEX = 0x40000002
    RESET = 0x40000003
    VP_RUNTIME = 0x40000010
    TIME_REF_COUNT = 0x40000020
    REFERENCE_TSC = 0x40000021
    TSC_FREQUENCY = 0x40000022
    APIC_FREQUENCY = 0x40000023
    EOI = 0x40000070
    ICR = 0x40000071
    TPR = 0x40000072
    APIC_ASSIST_PAGE = 0x40000073
    SCONTROL = 0x40000080
    SVERSION = 0x40000081
    SIEFP = 0x40000082
    SIMP = 0x40000083
    EOM = 0x40000084
    SINT = 0x40000090
    STIMER = 0x400000B0
    POWER_STATE_TRIGGER_C = 0x400000C1
    POWER_STATE_CONFIG_C = 0x400000D1
    STATS_PAGE = 0x400000E0
    GUEST_IDLE = 0x400000F0
    SYNDBG_CONTROL = 0x400000F1
    SYNDBG_STATUS = 0x400000F2
    SYNDBG_BUFFER = 0x400000F3
    SYNDBG_OPTIONS = 0x400000FF
    CRASH_P = 0x40000100
    CRASH_CTL = 0x40000105
    TSC_INVARIANT_CONTROL = 0x40000118

class MessageType(IntEnum):
    """Types of messages that the hypervisor sends (TLFS 14.8.2)."""

    # A member None = 0 (no message) cannot be written here: use MessageType["None"].
    UnmappedGpa = 0x80000000
    GpaIntercept = 0x80000001
    TimerExpired = 0x80000010
    InvalidVpRegisterValue = 0x80000020
    UnrecoverableException = 0x80000021
    UnsupportedFeature = 0x80000022
    ApicEoi = 0x80000030
    FerrAsserted = 0x80000031
    EventLogBuffersComplete = 0x80000040
    X64IoPortIntercept = 0x80010000
    X64MsrIntercept = 0x80010001
    X64CpuidIntercept = 0x80010002
    X64ExceptionIntercept = 0x80010003
    X64ApicEoi = 0x80010004
    X64FerrAsserted = 0x80010005
    X64Halt = 0x80010007
    X64InterruptionDeliverable = 0x80010008
    X64Sipi = 0x80010009

class Exit(IntEnum):
    """How a trapped instruction ends."""

    DONE = 0
    RETRY = 1
    IDLE = 2
    UD = 3
    GP = 4
    MC = 5
    INTERCEPT = 6
    NATIVE = 7

class OverlayKind(IntEnum):
    """Overlay pages (TLFS 8.1.3)."""

    HYPERCALL = 0
    REFERENCE_TSC = 1
    APIC_ASSIST = 2
    SIEF = 3
    SIM = 4
    STATS_PARTITION_RETAIL = 5
    STATS_PARTITION_INTERNAL = 6
    STATS_VP_RETAIL = 7
    STATS_VP_INTERNAL = 8
    STATS_OWN_PARTITION = 9
    STATS_OWN_VP = 10

class Register(IntEnum):
    """Names of a VP's registers (TLFS 11.2)."""

    ExplicitSuspend = 0x00000000
    InterceptSuspend = 0x00000001
    PendingInterruption = 0x00010002
    InterruptState = 0x00010003
    Rax = 0x00020000
    Rcx = 0x00020001
    Rdx = 0x00020002
    Rbx = 0x00020003
    Rsp = 0x00020004
    Rbp = 0x00020005
    Rsi = 0x00020006
    Rdi = 0x00020007
    R8 = 0x00020008
    R9 = 0x00020009
    R10 = 0x0002000A
    R11 = 0x0002000B
    R12 = 0x0002000C
    R13 = 0x0002000D
    R14 = 0x0002000E
    R15 = 0x0002000F
    Rip = 0x00020010
    Rflags = 0x00020011
    Xmm0 = 0x00030000
    Xmm1 = 0x00030001
    Xmm2 = 0x00030002
    Xmm3 = 0x00030003
    Xmm4 = 0x00030004
    Xmm5 = 0x00030005
    Xmm6 = 0x00030006
    Xmm7 = 0x00030007
    Xmm8 = 0x00030008
    Xmm9 = 0x00030009
    Xmm10 = 0x0003000A
    Xmm11 = 0x0003000B
    Xmm12 = 0x0003000C
    Xmm13 = 0x0003000D
    Xmm14 = 0x0003000E
    Xmm15 = 0x0003000F
    FpMmx0 = 0x00030010
    FpMmx1 = 0x00030011
    FpMmx2 = 0x00030012
    FpMmx3 = 0x00030013
    FpMmx4 = 0x00030014
    FpMmx5 = 0x00030015
    FpMmx6 = 0x00030016
    FpMmx7 = 0x00030017
    FpControlStatus = 0x00030018
    XmmControlStatus = 0x00030019
    Cr0 = 0x00040000
    Cr2 = 0x00040001
    Cr3 = 0x00040002
    Cr4 = 0x00040003
    Cr8 = 0x00040004
    Xfem = 0x00040005
    Dr0 = 0x00050000
    Dr1 = 0x00050001
    Dr2 = 0x00050002
    Dr3 = 0x00050003
    Dr6 = 0x00050004
    Dr7 = 0x00050005
    Es = 0x00060000
    Cs = 0x00060001
    Ss = 0x00060002
    Ds = 0x00060003
    Fs = 0x00060004
    Gs = 0x00060005
    Ldtr = 0x00060006
    Tr = 0x00060007
    Idtr = 0x00070000
    Gdtr = 0x00070001
    Tsc = 0x00080000
    Efer = 0x00080001
    KernelGsBase = 0x00080002
    ApicBase = 0x00080003
    Pat = 0x00080004
    SysenterCs = 0x00080005
    SysenterRip = 0x00080006
    SysenterRsp = 0x00080007
    Star = 0x00080008
    Lstar = 0x00080009
    Cstar = 0x0008000A
    Sfmask = 0x0008000B
    InitialApicId = 0x0008000C
    MtrrCap = 0x0008000D
    MtrrDefType = 0x0008000E
    MtrrPhysBase0 = 0x00080010
    MtrrPhysBase1 = 0x00080011
    MtrrPhysBase2 = 0x00080012
    MtrrPhysBase3 = 0x00080013
    MtrrPhysBase4 = 0x00080014
    MtrrPhysBase5 = 0x00080015
    MtrrPhysBase6 = 0x00080016
    MtrrPhysBase7 = 0x00080017
    MtrrPhysMask0 = 0x00080040
    MtrrPhysMask1 = 0x00080041
    MtrrPhysMask2 = 0x00080042
    MtrrPhysMask3 = 0x00080043
    MtrrPhysMask4 = 0x00080044
    MtrrPhysMask5 = 0x00080045
    MtrrPhysMask6 = 0x00080046
    MtrrPhysMask7 = 0x00080047
    MtrrFix64k00000 = 0x00080070
    MtrrFix16k80000 = 0x00080071
    MtrrFix16kA0000 = 0x00080072
    MtrrFix4kC0000 = 0x00080073
    MtrrFix4kC8000 = 0x00080074
    MtrrFix4kD0000 = 0x00080075
    MtrrFix4kD8000 = 0x00080076
    MtrrFix4kE0000 = 0x00080077
    MtrrFix4kE8000 = 0x00080078
    MtrrFix4kF0000 = 0x00080079
    MtrrFix4kF8000 = 0x0008007A
    VpRuntime = 0x00090000
    Hypercall = 0x00090001
    GuestOsId = 0x00090002
    VpIndex = 0x00090003
    TimeRefCount = 0x00090004
    Eoi = 0x00090010
    Icr = 0x00090011
    Tpr = 0x00090012
    ApicAssistPage = 0x00090013
    StatsPartitionRetail = 0x00090020
    StatsPartitionInternal = 0x00090021
    StatsVpRetail = 0x00090022
    StatsVpInternal = 0x00090023
    Sint0 = 0x000A0000
    Sint1 = 0x000A0001
    Sint2 = 0x000A0002
    Sint3 = 0x000A0003
    Sint4 = 0x000A0004
    Sint5 = 0x000A0005
    Sint6 = 0x000A0006
    Sint7 = 0x000A0007
    Sint8 = 0x000A0008
    Sint9 = 0x000A0009
    Sint10 = 0x000A000A
    Sint11 = 0x000A000B
    Sint12 = 0x000A000C
    Sint13 = 0x000A000D
    Sint14 = 0x000A000E
    Sint15 = 0x000A000F
    Scontrol = 0x000A0010
    Sversion = 0x000A0011
    Siefp = 0x000A0012
    Simp = 0x000A0013
    Eom = 0x000A0014
    Stimer0Config = 0x000B0000
    Stimer0Count = 0x000B0001
    Stimer1Config = 0x000B0002
    Stimer1Count = 0x000B0003
    Stimer2Config = 0x000B0004
    Stimer2Count = 0x000B0005
    Stimer3Config = 0x000B0006
    Stimer3Count = 0x000B0007
    Ymm0Low = 0x000C0000
    Ymm1Low = 0x000C0001
    Ymm2Low = 0x000C0002
    Ymm3Low = 0x000C0003
    Ymm4Low = 0x000C0004
    Ymm5Low = 0x000C0005
    Ymm6Low = 0x000C0006
    Ymm7Low = 0x000C0007
    Ymm8Low = 0x000C0008
    Ymm9Low = 0x000C0009
    Ymm10Low = 0x000C000A
    Ymm11Low = 0x000C000B
    Ymm12Low = 0x000C000C
    Ymm13Low = 0x000C000D
    Ymm14Low = 0x000C000E
    Ymm15Low = 0x000C000F
    Ymm0High = 0x000C0010
    Ymm1High = 0x000C0011
    Ymm2High = 0x000C0012
    Ymm3High = 0x000C0013
    Ymm4High = 0x000C0014
    Ymm5High = 0x000C0015
    Ymm6High = 0x000C0016
    Ymm7High = 0x000C0017
    Ymm8High = 0x000C0018
    Ymm9High = 0x000C0019
    Ymm10High = 0x000C001A
    Ymm11High = 0x000C001B
    Ymm12High = 0x000C001C
    Ymm13High = 0x000C001D
    Ymm14High = 0x000C001E
    Ymm15High = 0x000C001F
    PendingEvent0 = 0x00010004
    DeliverabilityNotifications = 0x00010006

class Translation(IntEnum):
    """What a GPA leads to (TLFS chapter 8)."""

    RAM = 0
    OVERLAY = 1
    APIC = 2
    UNMAPPED = 3
    DENIED = 4
    FAULT = 5
    CHECK = 6

class Line(IntEnum):
    """Lines of a child VP's processor."""

    INTERRUPT = 0
    NMI = 1
    INIT = 2

class Progress(IntEnum):
    """How a platform function that may take long went."""

    DONE = 0
    WAIT = 1
    FAILED = 2

class PortType(IntEnum):
    """Types of ports (TLFS 14.8.6)."""

    MESSAGE = 1
    EVENT = 2
    MONITOR = 3

GENERATIONS: Final[dict[str, int]]
"""Names of the interface generations, and their bits in the `generations` of a row."""

property_rows: Final[tuple[tuple[str, str, int, int], ...]]
"""What an operator switches by name: kind (privilege, feature, recommendation), name, bit, generations."""

class HypercallRow:
    """A row of the core's hypercall table (TLFS appendix B). Sizes in bytes."""

    @property
    def code(self) -> int:
        """Call code."""

    @property
    def name(self) -> str:
        """The specification's name."""

    @property
    def section(self) -> str:
        """Section of TLFS 2.0a, or "later"."""

    @property
    def generations(self) -> int:
        """Bits of `GENERATIONS`."""

    @property
    def rep(self) -> bool:
        """Whether it is a rep call (TLFS 4.2)."""

    @property
    def fast(self) -> bool:
        """Whether its parameters may be in two registers (TLFS 4.7)."""

    @property
    def xmm(self) -> bool:
        """Whether its parameters may be in the 112-byte block of registers (TLFS 4.7.1)."""

    @property
    def variable(self) -> bool:
        """Whether a variable header may follow the input header."""

    @property
    def implemented(self) -> bool:
        """False: it answers HV_STATUS_INVALID_HYPERCALL_CODE once the checks before that have passed."""

    @property
    def gate(self) -> int:
        """Bit of the privilege that the caller needs, or -1."""

    @property
    def input(self) -> int:
        """Size of the input header."""

    @property
    def input_element(self) -> int:
        """Size of an element of the input list."""

    @property
    def output(self) -> int:
        """Size of the output header."""

    @property
    def output_element(self) -> int:
        """Size of an element of the output list."""

hypercall_rows: Final[tuple[HypercallRow, ...]]
"""All rows, in the order of the counters in `VpState` and of `Trace.row`."""

class StatsRow:
    """A counter of the core's table (TLFS appendix J)."""

    @property
    def group(self) -> str:
        """The group, as the text abbreviates it."""

    @property
    def index(self) -> int:
        """Index in the group."""

    @property
    def symbol(self) -> str:
        """An identifier, unique among an object's counters."""

    @property
    def name(self) -> str:
        """The specification's name."""

    @property
    def unit(self) -> str:
        """Of the value: "", "pages", "100ns", "ns" or "%"."""

    @property
    def what(self) -> str:
        """What is counted, or why nothing is."""

    @property
    def generations(self) -> int:
        """Bits of `GENERATIONS`."""

    @property
    def object(self) -> int:
        """HV_STATS_OBJECT_TYPE (TLFS 21.2.1)."""

    @property
    def kind(self) -> str:
        """One of "level", "count", "time", "cost", "percent"."""

    @property
    def by(self) -> str:
        """Who counts: "core", "platform" (which tells the core), "never"."""

stats_rows: Final[tuple[StatsRow, ...]]
"""All counters."""
stats_groups: Final[tuple[tuple[str, int, int, str, str], ...]]
"""Groups: abbreviation, HV_STATS_OBJECT_TYPE, ID, name, section."""

class MsrRow:
    """A row of the core's MSR table (TLFS appendix H): one register, or a family of consecutive ones."""

    @property
    def index(self) -> int:
        """First index."""

    @property
    def count(self) -> int:
        """Number of registers."""

    @property
    def name(self) -> str:
        """The specification's name without HV_X64_MSR_."""

    @property
    def section(self) -> str:
        """Section of TLFS 2.0a, or "later"."""

    @property
    def generations(self) -> int:
        """Bits of `GENERATIONS`."""

    @property
    def readable(self) -> bool:
        """Whether a read is not #GP."""

    @property
    def writable(self) -> bool:
        """Whether a write is not #GP."""

    @property
    def per_vp(self) -> bool:
        """Whether each VP has its own."""

    @property
    def implemented(self) -> bool:
        """False: every access is #GP."""

    @property
    def privilege(self) -> int:
        """Bit of the privilege that an access needs, or -1."""

    @property
    def feature(self) -> int:
        """Bit of the feature that an access needs, or -1."""

msr_rows: Final[tuple[MsrRow, ...]]
"""All rows, in the order of the counters in `VpState`."""

class ProcessorException(Exception):
    """The guest's instruction ends with an exception."""

class InvalidOpcode(ProcessorException):
    """#UD."""

class GeneralProtectionFault(ProcessorException):
    """#GP."""

class MachineCheck(ProcessorException):
    """#MC."""

class GpaFault(ProcessorException):
    """A child's access that its GPA space does not allow; its processor would get an intercept."""

class RestoreError(ValueError):
    """A saved stream was refused; the text says why."""

class ContractViolation(AssertionError):
    """The core broke a rule of csrc/hv/platform.h or a promise of hypervisor.h: a bug in the core."""

@type_check_only
class Config(TypedDict):
    """What a machine was made with."""

    privileges: int
    features: int
    recommendations: int
    spinlock_retries: int
    vp_count: int
    gpa_bits: int
    tsc_frequency: int
    apic_frequency: int
    build_number: int
    service_pack: int
    service_number: int
    major_version: int
    minor_version: int
    service_branch: int

@type_check_only
class InjectionState(TypedDict):
    """A rule of fault injection and what it has done."""

    id: str
    orphaned: bool
    matched: int
    injected: int
    skipped: int

@type_check_only
class PartitionState(TypedDict):
    """What an operator sees of the partition."""

    id: int
    guest_os_id: int
    hypercall_msr: int
    reference_tsc_msr: int
    crash_control: int
    crash_parameters: list[int]
    reference_time: int
    tsc_scale: int
    tsc_offset: int
    tsc_sequence: int
    privileges: int
    features: int
    recommendations: int
    tsc_page_enabled: bool
    hypercall_page_enabled: bool

@type_check_only
class TimerState(TypedDict):
    """What an operator sees of a synthetic timer; `due` is None while it is not armed."""

    config: int
    count: int
    due: int | None
    message_pending: bool
    expirations: int

@type_check_only
class VpState(TypedDict):
    """What an operator sees of a VP; `queued` and `sint` by SINT, counters by row of the tables."""

    apic_assist_page: int
    scontrol: int
    siefp: int
    simp: int
    sint: list[int]
    queued: list[int]
    timers: list[TimerState]
    run_time: int
    hypercalls: list[int]
    unknown_hypercalls: int
    msr_reads: list[int]
    msr_writes: list[int]
    unknown_msrs: int
    messages_delivered: int
    events_signaled: int
    interrupts_requested: int
    auto_eois: int
    assisted_eois: int

@type_check_only
class PortState(TypedDict):
    """A port; `vp` is None for HV_ANY_VP, `queued` counts messages that wait for a slot."""

    port_id: int
    type: PortType
    sint: int
    vp: int | None
    base_flag: int
    flag_count: int
    post_count: int
    queued: int

@type_check_only
class ConnectionState(TypedDict):
    """A connection and the port that it was made for."""

    connection_id: int
    port_id: int

@type_check_only
class ApicState(TypedDict):
    """A VP's local APIC; `irr` and `isr` are lists of vectors."""

    enabled: bool
    tpr: int
    icr: int
    irr: list[int]
    isr: list[int]

@type_check_only
class Flush(TypedDict):
    """A flush of translations; `ranges` are (page-aligned GVA, pages), or None for everything."""

    caller: int
    vps: list[int]
    keep_global: bool
    ranges: list[tuple[int, int]] | None

@type_check_only
class Crash(TypedDict):
    """A crash that the guest reported."""

    vp: int
    parameters: list[int]
    message: bytes | None

@type_check_only
class Trace(TypedDict):
    """A traced hypercall; `row` is an index of `hypercall_rows`, or -1."""

    vp: int
    row: int
    input: int
    result: int

class HypercallResult:
    """What a hypercall instruction did to its caller."""

    @property
    def exit(self) -> Exit:
        """How the instruction ended."""

    @property
    def status(self) -> Status | None:
        """The status code, or None when the instruction did not retire."""

    @property
    def reps_completed(self) -> int:
        """Reps completed, counted from the start of the list (TLFS 4.8)."""

    @property
    def result(self) -> int:
        """The whole 64-bit result value."""

    @property
    def retries(self) -> int:
        """How often `Machine.call` executed the instruction again."""

    @property
    def registers(self) -> list[int]:
        """The general registers afterwards, in encoding order: RAX RCX RDX RBX RSP RBP RSI RDI R8..R15."""

@type_check_only
class Admission(TypedDict):
    """A question to the policy; `what` is 0 for a partition, 1 for a VP."""

    what: int
    parent: int
    partition: int
    depth: int
    partitions: int
    vps: int
    privileges: int
    mapped_pages: int
    promised_pages: int

@type_check_only
class PartitionInfo(TypedDict):
    """A partition as the operator sees it; `parent` is 0 for the machine's own, `state` counts TLFS 5.2.5's states."""

    id: int
    parent: int
    depth: int
    name: str
    state: int
    vp_count: int
    privileges: int
    pages_available: int
    pages_in_use: int
    mapped_pages: int
    page_limit: int
    paused: bool

class Machine:
    """A machine made of numbers, with the hypervisor's core under its guest.

    Args:
        generation: "current" or "2008r2".
        vps: Number of VPs.
        memory: Bytes of RAM from address 0; a page takes host memory when it is first written.
        tsc_frequency: Hz. The default makes 256 ticks exactly one unit of reference time.
        apic_frequency: Hz.
        privileges: HV_PARTITION_PRIVILEGE_MASK (TLFS 5.2.3); None means the generation's default.
        features: CPUID 0x40000003 EDX; likewise.
        recommendations: CPUID 0x40000004 EAX; likewise.
        spinlock_retries: CPUID 0x40000004 EBX; likewise.
        gpa_bits: The GPA space ends at ``1 << gpa_bits``.
        hypercall_code: The start of the hypercall page.
        root: Whether the machine's partition is the root, with all privileges, a second stage and a logical
            processor for each VP.
        processor: What its processors have, as values of the partition properties: features, XSAVE features, size of
            a cache line in units of 8 bytes. None means what every such processor has.
        debugging: Whether there is a connection to a debugger (TLFS 20.1).
        fewer_intercepts: Whether CPUID and exceptions of children cannot be intercepted.
        gpa_ranges_most: How many ranges the map of a child may consist of; 0: any number.

    Raises:
        ValueError: A machine like that is not possible; the text says why.

    A VP is named by its handle: its index if it is of the machine's partition, a number from there on if it is of a
    child. Methods that name a VP raise IndexError when there is none, and every method that enters the
    core raises ContractViolation when the core broke a rule.
    """

    def __init__(
        self,
        generation: str = "current",
        *,
        vps: int = 1,
        memory: int = 1 << 24,
        tsc_frequency: int = 2_560_000_000,
        apic_frequency: int = 1_000_000_000,
        privileges: int | None = None,
        features: int | None = None,
        recommendations: int | None = None,
        spinlock_retries: int | None = None,
        gpa_bits: int = 36,
        hypercall_code: bytes = ...,
        root: bool = False,
        processor: tuple[int, int, int] | None = None,
        debugging: bool = False,
        fewer_intercepts: bool = False,
        gpa_ranges_most: int = 0,
    ) -> None: ...

    # -- Instructions of the guest --

    def cpuid(self, leaf: int) -> tuple[int, int, int, int]:
        """EAX, EBX, ECX and EDX of a leaf in 0x40000000..0x4000FFFF (TLFS 3.3)."""

    @property
    def tsc_is_invariant(self) -> bool:
        """Whether the guest asked for an invariant TSC."""

    def rdmsr(self, vp: int, index: int) -> int:
        """Read a synthetic MSR. A read that makes the VP idle is recorded in `idles`.

        Raises:
            GeneralProtectionFault: The register cannot be read.
        """

    def wrmsr(self, vp: int, index: int, value: int) -> None:
        """Write a synthetic MSR.

        Raises:
            GeneralProtectionFault: The register cannot be written, or not with this value.
        """

    def hypercall(
        self,
        vp: int,
        input: int,
        rdx: int = 0,
        r8: int = 0,
        *,
        xmm: bytes = b"",
        long_mode: bool = True,
        legal: bool = True,
        registers: Sequence[int] | None = None,
    ) -> HypercallResult:
        """Execute the hypercall instruction once (TLFS 4.7).

        Args:
            vp: The caller.
            input: The hypercall input value, in RCX or EDX:EAX.
            rdx: First parameter or GPA of the input, in RDX or EBX:ECX.
            r8: Second parameter or GPA of the output, in R8 or EDI:ESI.
            xmm: XMM0 to XMM5, filled up with zeros.
            long_mode: Whether the caller is a 64-bit caller.
            legal: Whether it is in protected mode at CPL 0 (TLFS 4.5).
            registers: The 16 general registers before the above are put into them.
        """

    def call(
        self, vp: int, input: int, rdx: int = 0, r8: int = 0, *, xmm: bytes = b"", long_mode: bool = True
    ) -> HypercallResult:
        """Execute the hypercall instruction until it retires or faults (TLFS 4.3)."""

    # -- Memory --

    def read(self, gpa: int, size: int, vp: int = 0) -> bytes:
        """Read as the guest does: overlays are seen, where nothing is mapped there are ones.

        Raises:
            MachineCheck: A page may not be read (TLFS 11.8).
        """

    def write(self, gpa: int, data: bytes, vp: int = 0) -> None:
        """Write as the guest does: overlays are seen, where nothing is mapped data is dropped.

        Raises:
            MachineCheck: A page may not be written (TLFS 11.8).
            GeneralProtectionFault: A page is a read-only overlay (TLFS 4.12).
        """

    def read_ram(self, gpa: int, size: int) -> bytes:
        """Read RAM under any overlay, inside one page, whatever its rights.

        Raises:
            ValueError: There is no RAM, or the range crosses a page.
        """

    def map(self, gpa: int, size: int = 4096, *, readable: bool = True, writable: bool = True) -> None:
        """Map RAM with these rights to every page that the range touches."""

    def unmap(self, gpa: int, size: int = 4096) -> None:
        """Leave every page that the range touches without anything."""

    @property
    def overlays(self) -> list[tuple[OverlayKind, int, int]]:
        """Overlays that are shown: kind, VP, GPA; the topmost last."""

    # -- Time --

    tsc: int
    """The TSC as every VP reads it. Setting it lets time pass without timers being looked at."""

    def advance(self, nano100: int) -> None:
        """Let time pass; timers are called when the TSC has reached their time."""

    def advance_tsc(self, ticks: int) -> None:
        """Let time pass by ticks of the TSC."""

    def fire_due_timers(self) -> None:
        """Call timers whose time has come."""

    def timer_expired(self, vp: int, timer: int) -> None:
        """Call a timer now, early or not."""

    def timer_tsc(self, vp: int, timer: int) -> int | None:
        """The TSC at which the core wants a timer called, or None. Timer 4 retries messages."""

    @property
    def reference_time(self) -> int:
        """Reference time (TLFS 15.1.2)."""

    def set_run_time(self, vp: int, nano100: int) -> None:
        """Say how long a VP has run (TLFS 10.3.2)."""

    # -- Local APICs --

    def apic(self, vp: int) -> ApicState:
        """State of a VP's local APIC, as it is without asking the assist page."""

    def set_apic_enabled(self, vp: int, enabled: bool) -> None:
        """Switch the software enable of a local APIC."""

    def request_interrupt(self, vp: int, vector: int) -> None:
        """Request an edge-triggered interrupt, as a device does."""

    def accept(self, vp: int) -> int | None:
        """Have the VP accept its highest requested interrupt; None when its priority forbids or none is there."""

    def eoi(self, vp: int) -> None:
        """End the highest interrupt in service by the APIC's memory-mapped register."""

    def assisted_eoi(self, vp: int) -> bool:
        """End an interrupt as TLFS 13.3.4.1 recommends; whether that needed no write of the EOI MSR."""

    # -- Operator --

    def operator_create_port(
        self,
        port_id: int,
        port_type: int,
        sint: int,
        *,
        vp: int | None = None,
        base_flag: int = 0,
        flag_count: int = 0,
    ) -> Status:
        """Create a port of the partition (TLFS 14.9.1); `vp` None means HV_ANY_VP."""

    def operator_delete_port(self, port_id: int) -> Status:
        """Delete a port and the messages queued from it (TLFS 14.9.2)."""

    def operator_connect_port(self, connection_id: int, port_id: int) -> Status:
        """Connect the partition to its own port (TLFS 14.9.3)."""

    def operator_disconnect_port(self, connection_id: int) -> Status:
        """Break a connection (TLFS 14.9.6)."""

    def operator_post_message(self, port_id: int, message_type: int, payload: bytes) -> Status:
        """Post to a port as HvPostMessage does (TLFS 14.9.7)."""

    def operator_signal_event(self, port_id: int, flag: int) -> Status:
        """Signal at a port as HvSignalEvent does (TLFS 14.9.8)."""

    def ports(self) -> list[PortState]:
        """All ports."""

    def connections(self) -> list[ConnectionState]:
        """All connections."""

    def partition_state(self) -> PartitionState:
        """State of the partition."""

    def vp_state(self, vp: int) -> VpState:
        """State of a VP."""

    def set_trace(self, on: bool) -> None:
        """Record hypercalls in `traces`, or stop it."""

    # -- What the core asked of the machine, in order --

    @property
    def interrupts(self) -> list[tuple[int, int]]:
        """Interrupts requested by the core: VP, vector."""

    @property
    def lost_interrupts(self) -> list[tuple[int, int]]:
        """The same, of VPs whose APIC was disabled."""

    @property
    def flushes(self) -> list[Flush]:
        """Flushes of translations."""

    @property
    def crashes(self) -> list[Crash]:
        """Crashes that the guest reported."""

    @property
    def traces(self) -> list[Trace]:
        """Traced hypercalls."""

    @property
    def overlay_changes(self) -> list[tuple[OverlayKind, int, int | None]]:
        """Overlays shown at a GPA or, None, nowhere: kind, VP, GPA."""

    @property
    def cr3_loads(self) -> list[tuple[int, int]]:
        """Loads of CR3: VP, value."""

    @property
    def icr_writes(self) -> list[tuple[int, int]]:
        """Writes of the ICR: VP, value."""

    @property
    def eoi_writes(self) -> list[tuple[int, int]]:
        """EOIs by MSR: VP, value."""

    @property
    def spin_waits(self) -> list[int]:
        """VPs that notified a long spin wait."""

    @property
    def idles(self) -> list[int]:
        """VPs that went to sleep."""

    @property
    def resets(self) -> int:
        """How often the guest asked for a reset; `reset` is the reset itself."""

    @property
    def cpuid_changes(self) -> int:
        """How often architectural CPUID changed its answer."""

    # -- The debugger's end of the connection (TLFS 20.1) --

    def debug_take(self, size: int = 65536) -> bytes:
        """What guests have posted, at most `size` bytes; with a root in frames."""

    def debug_receive(self, data: bytes) -> None:
        """Bytes from the debugger; with a root in frames."""

    def debug_connected(self) -> None:
        """The connection was made anew."""

    @property
    def debug_room(self) -> int:
        """How many bytes may come without any being lost for want of a reader."""

    @property
    def debug_posts(self) -> int:
        """How often the core said that something has been posted."""

    # -- Fault injection, and the profiler as an event log starts and stops it (TLFS 23.3) --

    def inject_add(
        self,
        id: str,
        point: str,
        action: str,
        *,
        target: int | None = None,
        partition: int = 1,
        vp: int | None = None,
        nth: int | None = None,
        every: int | None = None,
        fraction: float | None = None,
        seed: int = 0,
        limit: int = 0,
        status: int = 0,
        delay_us: int = 1000,
    ) -> str | None:
        """Add a rule (names as in QMP); why it was refused, or None."""

    def inject_remove(self, id: str | None = None) -> bool:
        """Remove a rule, or all; whether there was one."""

    def injections(self) -> list[InjectionState]:
        """The rules with their counters: id, orphaned, matched, injected, skipped."""

    def profiler_start(self) -> bool:
        """Start it; False when it is not configured."""

    def profiler_stop(self) -> None:
        """Stop it."""

    def profiler_samples(self, lp: int) -> int:
        """How many samples have been taken on an LP."""

    def clear_records(self) -> None:
        """Forget all of these."""

    # -- State --

    @property
    def config(self) -> Config:
        """What the machine was made with; after a restore the TSC frequency is the stream's."""

    def reset(self) -> None:
        """Reset the machine."""

    def save(self) -> bytes:
        """The core's state as a versioned stream."""

    def restore(self, stream: bytes) -> None:
        """Take over a saved stream.

        Raises:
            RestoreError: It was refused; the core's state is that of a reset.
        """

    def migrate(self, *, tsc_frequency: int | None = None) -> Machine:
        """Another machine in the same state: RAM, APICs and TSC copied, the core saved and restored.

        Args:
            tsc_frequency: What the new machine's frequency was before it took over the stream's.
        """

    # -- Processors of child VPs --

    def register(self, vp: int, name: int) -> int:
        """A register that the processor keeps, as a number of 128 bits; 0 while nobody has set it."""

    def set_register(self, vp: int, name: int, value: int) -> None:
        """Set it."""

    def refuse_register(self, name: int, refuse: bool = True) -> None:
        """Make processors refuse every value of a register."""

    def set_waits(self, vp: int, waits: bool) -> None:
        """Halt a VP of any partition, or say that something woke it."""

    def waits_for_sipi(self, vp: int) -> bool:
        """Whether the VP waits for a startup IPI."""

    def line(self, vp: int, line: int) -> bool:
        """State of a line of the processor."""

    def set_code(self, vp: int, code: bytes) -> None:
        """What lies at CS:RIP."""

    def set_gva(self, vp: int, gva: int, gpa: int, result: int = 0, cache_type: int = 6) -> None:
        """What a walk of the VP's page tables answers for a page; `result` counts the causes of a failure."""

    def set_creation(self, progress: int) -> None:
        """How making a processor goes from now on (`Progress`)."""

    def set_admission(self, progress: int, privileges: int | None = None, page_limit: int | None = None) -> None:
        """What the policy answers from now on, and the privileges and mapped pages it allows new partitions."""

    # -- The operator's view of the tree --

    def partitions(self) -> list[PartitionInfo]:
        """All partitions, a parent before its children."""

    def operator_delete_partition(self, partition: int) -> int:
        """Delete a child with all that is attached to it: 0 done, 1 its VPs are being stopped, 2 there is none."""

    def operator_pause_partition(self, partition: int, pause: bool) -> bool:
        """Stop or let go on the VPs of a child; False: there is none."""

    # -- The operator's event log --

    def events_start(self, groups: int, *, size: int = ..., partition: int = 0) -> int:
        """Record events of these groups, of one partition or of all (0), `size` bytes for each LP; a Progress."""

    def events_stop(self) -> None:
        """Record no more."""

    def events_read(self, size: int = ...) -> bytes:
        """Take out entries, at most `size` bytes of them."""

    @property
    def events_state(self) -> dict[str, int]:
        """Whether it runs, how, and counts of events recorded and lost and of bytes unread."""

    # -- Children as a whole --

    def save_child(self, partition: int) -> bytes:
        """The state of a child of the root with all that its parent gave it, but for the contents of pages."""

    def restore_child(self, stream: bytes, pages: int) -> int:
        """Make a child that has so many pages mapped again; its ID. Raises RestoreError, and nothing has changed."""

    def child_runs(self, partition: int) -> list[tuple[int, int, int]]:
        """What a child has mapped: page in the child, page in the machine's memory, number of pages."""

    def child_is_settled(self, partition: int) -> tuple[int, str]:
        """Whether a paused child can be saved: 0 yes, 1 not yet, 2 never, and then why."""

    # -- What a child's processor tells --

    def io(
        self,
        vp: int,
        port: int,
        size: int,
        write: bool,
        value: int = 0,
        *,
        length: int = 1,
        string: bool = False,
        rep: bool = False,
    ) -> tuple[Exit, int]:
        """IN or OUT: how it ends, and the value."""

    def child_cpuid(
        self, vp: int, leaf: int, subleaf: int = 0, native: Sequence[int] = (0, 0, 0, 0), *, length: int = 2
    ) -> tuple[Exit, tuple[int, int, int, int]]:
        """CPUID where the machine would answer `native`."""

    def child_rdmsr(self, vp: int, index: int) -> tuple[Exit, int]:
        """RDMSR of any register."""

    def child_wrmsr(self, vp: int, index: int, value: int) -> Exit:
        """WRMSR of any register."""

    def exception(self, vp: int, vector: int, error_code: int | None = None, parameter: int = 0) -> Exit:
        """An exception is about to be delivered."""

    def memory_intercept(
        self,
        vp: int,
        gpa: int,
        access: int,
        unmapped: bool,
        gva: int | None = None,
        interruption_pending: bool = False,
    ) -> Exit:
        """An access failed in the second stage; no `gva` for one to a page table."""

    def triple_fault(self, vp: int) -> Exit:
        """The processor shuts down."""

    def invalid_vp_state(self, vp: int) -> Exit:
        """The processor cannot go on with its registers."""

    def ferr_asserted(self, vp: int) -> Exit:
        """The processor made a legacy floating-point error, and the instruction has retired."""

    def unsupported_feature(self, vp: int, code: int, parameter: int) -> Exit:
        """The processor met something that is not virtualized."""

    def translate(self, vp: int, gpa: int, access: int) -> tuple[Translation, int, int, int]:
        """What a GPA leads to: kind, SPA of the page, rights, bytes mapped alike around it."""

    def gpa_space(self, partition: int) -> tuple[int, int]:
        """Bytes of the host's memory that a partition's GPA map costs, and how many pages a child has mapped.

        Raises:
            KeyError: There is no such partition.
        """

    # -- Interrupts and scheduling --

    def child_interrupt(self, vp: int) -> int | None:
        """The vector that the processor takes now."""

    def lapic_read(self, vp: int, offset: int) -> int:
        """Read the xAPIC page."""

    def lapic_write(self, vp: int, offset: int, value: int) -> None:
        """Write it."""

    def read_cr8(self, vp: int) -> int:
        """Read CR8."""

    def write_cr8(self, vp: int, value: int) -> None:
        """Write it."""

    def init_done(self, vp: int) -> None:
        """The processor has taken INIT."""

    def schedule(self, lp: int, interrupted: bool = False) -> tuple[int | None, int | None]:
        """The VP that the LP runs next, and the TSC at which its slice ends.

        Args:
            interrupted: whether the machine has an interrupt for the LP's root VP.
        """

    def stopped(self, vp: int) -> None:
        """The VP left the guest."""

    def lp_has_work(self, lp: int) -> bool:
        """Whether any VP of the LP is ready."""

    def lp_of(self, vp: int) -> int:
        """The LP that a VP is assigned to."""

    def stats(self) -> list[tuple[int, int, int, dict[str, int]]]:
        """Type of object (TLFS 21.2.1), partition ID, index, and counters by `StatsRow.symbol`, of every object."""

    def count(self, vp: int, counter: int, ticks: int = 0) -> None:
        """Tell of an event that only the platform sees: index in group VPV, and how many TSC ticks it takes."""

    def count_shared(self, vp: int, counter: int) -> None:
        """The same of an event that another thread sees."""

    call_ticks: int
    """TSC ticks that a switch of address spaces takes."""

    def handle(self, partition: int, vp_index: int) -> int | None:
        """Handle of a partition's VP."""

    @property
    def kicks(self) -> list[int]:
        """VPs that were made to leave the guest, in order."""

    @property
    def lp_kicks(self) -> list[int]:
        """LPs that were made to look for work, in order."""

    @property
    def creations(self) -> list[int]:
        """VPs whose processors were made, in order."""

    @property
    def vp_resets(self) -> list[int]:
        """VPs whose processors were reset, in order."""

    @property
    def lines(self) -> list[tuple[int, Line, bool]]:
        """Changes of processors' lines: VP, line, raised."""

    @property
    def starts(self) -> list[tuple[int, int]]:
        """Startup IPIs taken: VP, vector."""

    @property
    def second_stage_flushes(self) -> list[tuple[int, list[int]]]:
        """Flushes of the second stage: calling VP, VPs flushed."""

    @property
    def admissions(self) -> list[Admission]:
        """What the policy was asked."""

def default_config(generation: str) -> Config:
    """What a partition with role=guest has by default; counts, bits and frequencies are 0."""

def status_name(status: int) -> str | None:
    """The specification's name of a status code, or None when it has none."""

def fuzz(data: bytes) -> int:
    """Be the hostile guest that these bytes describe; returns the number of steps taken.

    Raises:
        ContractViolation: The core broke a rule or a promise.
    """

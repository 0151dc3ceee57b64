# SPDX-License-Identifier: GPL-2.0-or-later
"""The specification's tables, written down from its text and appendices B, C and H.

Nothing here comes from the core's own tables: these are what those are checked against.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Relation = Literal["any", "parent", "parent or self", "parent or root itself", "root", "by type"]
"""What the caller must be to the partition that the call names (the sections' "Restrictions")."""

# Bits of HV_PARTITION_PRIVILEGE_MASK (TLFS 5.2.3).
VP_RUN_TIME, REFERENCE_COUNTER, SYNIC, TIMERS, APIC, HYPERCALL, VP_INDEX, RESET, STATS_MSR = range(9)
REFERENCE_TSC, GUEST_IDLE = 9, 10
CREATE_PARTITIONS, PARTITION_ID, MEMORY_POOL = 32, 33, 34
POST_MESSAGES, SIGNAL_EVENTS, CREATE_PORT, CONNECT_PORT, STATS = 36, 37, 38, 39, 40
DEBUGGING, CPU_MANAGEMENT = 43, 44


class Call(NamedTuple):
    """A hypercall of TLFS 2.0a. Sizes in bytes; `privilege` is a bit or None."""

    code: int
    name: str
    rep: bool
    fast: bool
    privilege: int | None
    relation: Relation
    input: int
    input_element: int
    output: int
    output_element: int


CALLS_2008R2 = [
    Call(0x0001, "HvSwitchVirtualAddressSpace", False, True, None, "any", 8, 0, 0, 0),
    Call(0x0002, "HvFlushVirtualAddressSpace", False, False, None, "any", 24, 0, 0, 0),
    Call(0x0003, "HvFlushVirtualAddressList", True, False, None, "any", 24, 8, 0, 0),
    Call(0x0004, "HvGetLogicalProcessorRunTime", False, False, CPU_MANAGEMENT, "any", 0, 0, 32, 0),
    Call(0x0008, "HvNotifyLongSpinWait", False, True, None, "any", 8, 0, 0, 0),
    Call(0x0009, "HvParkLogicalProcessors", False, True, CPU_MANAGEMENT, "any", 8, 0, 0, 0),
    Call(0x0040, "HvCreatePartition", False, False, CREATE_PARTITIONS, "any", 16, 0, 8, 0),
    Call(0x0041, "HvInitializePartition", False, True, None, "parent", 8, 0, 0, 0),
    Call(0x0042, "HvFinalizePartition", False, True, None, "parent", 8, 0, 0, 0),
    Call(0x0043, "HvDeletePartition", False, True, None, "parent", 8, 0, 0, 0),
    Call(0x0044, "HvGetPartitionProperty", False, False, None, "parent or root itself", 16, 0, 8, 0),
    Call(0x0045, "HvSetPartitionProperty", False, False, None, "parent or root itself", 24, 0, 0, 0),
    Call(0x0046, "HvGetPartitionId", False, False, PARTITION_ID, "any", 0, 0, 8, 0),
    Call(0x0047, "HvGetNextChildPartition", False, False, None, "parent", 16, 0, 8, 0),
    Call(0x0048, "HvDepositMemory", True, False, MEMORY_POOL, "parent or root itself", 8, 8, 0, 0),
    Call(0x0049, "HvWithdrawMemory", True, False, MEMORY_POOL, "parent or root itself", 16, 0, 0, 8),
    Call(0x004A, "HvGetMemoryBalance", False, False, MEMORY_POOL, "parent or root itself", 16, 0, 16, 0),
    Call(0x004B, "HvMapGpaPages", True, False, None, "parent or root itself", 24, 8, 0, 0),
    Call(0x004C, "HvUnmapGpaPages", True, False, None, "parent", 16, 0, 0, 0),
    Call(0x004D, "HvInstallIntercept", False, False, None, "parent", 24, 0, 0, 0),
    Call(0x004E, "HvCreateVp", False, False, None, "parent", 32, 0, 0, 0),
    Call(0x004F, "HvDeleteVp", False, True, None, "parent", 16, 0, 0, 0),
    Call(0x0050, "HvGetVpRegisters", True, False, None, "parent or self", 16, 4, 0, 16),
    Call(0x0051, "HvSetVpRegisters", True, False, None, "parent", 16, 32, 0, 0),
    Call(0x0052, "HvTranslateVirtualAddress", False, False, None, "parent", 32, 0, 16, 0),
    Call(0x0053, "HvReadGpa", False, False, None, "parent", 32, 0, 24, 0),
    Call(0x0054, "HvWriteGpa", False, False, None, "parent", 48, 0, 8, 0),
    Call(0x0055, "HvAssertVirtualInterrupt", False, False, None, "parent", 32, 0, 0, 0),
    Call(0x0056, "HvClearVirtualInterrupt", False, True, None, "parent", 8, 0, 0, 0),
    Call(0x0057, "HvCreatePort", False, False, CREATE_PORT, "parent or self", 48, 0, 0, 0),
    Call(0x0058, "HvDeletePort", False, True, CREATE_PORT, "parent or self", 16, 0, 0, 0),
    Call(0x0059, "HvConnectPort", False, False, CONNECT_PORT, "parent or self", 40, 0, 0, 0),
    Call(0x005A, "HvGetPortProperty", False, False, CREATE_PORT, "parent or self", 24, 0, 8, 0),
    Call(0x005B, "HvDisconnectPort", False, True, CONNECT_PORT, "parent or self", 16, 0, 0, 0),
    Call(0x005C, "HvPostMessage", False, False, POST_MESSAGES, "any", 256, 0, 0, 0),
    Call(0x005D, "HvSignalEvent", False, True, SIGNAL_EVENTS, "any", 8, 0, 0, 0),
    Call(0x005E, "HvSavePartitionState", False, False, None, "parent", 16, 0, 4088, 0),
    Call(0x005F, "HvRestorePartitionState", False, False, CREATE_PARTITIONS, "parent", 16, 0, 8, 0),
    Call(0x0060, "HvInitializeEventLogBufferGroup", False, False, None, "root", 32, 0, 0, 0),
    Call(0x0061, "HvFinalizeEventLogBufferGroup", False, True, None, "root", 8, 0, 0, 0),
    Call(0x0062, "HvCreateEventLogBuffer", False, True, None, "root", 16, 0, 0, 0),
    Call(0x0063, "HvDeleteEventLogBuffer", False, True, None, "root", 8, 0, 0, 0),
    Call(0x0064, "HvMapEventLogBuffer", False, False, None, "root", 8, 0, 0, 0),
    Call(0x0065, "HvUnmapEventLogBuffer", False, True, None, "root", 8, 0, 0, 0),
    Call(0x0066, "HvSetEventLogGroupSources", False, True, None, "root", 16, 0, 0, 0),
    Call(0x0067, "HvReleaseEventLogBuffer", False, True, None, "root", 8, 0, 0, 0),
    Call(0x0068, "HvFlushEventLogBuffer", False, True, None, "root", 8, 0, 0, 0),
    Call(0x0069, "HvPostDebugData", False, False, DEBUGGING, "any", 8, 0, 8, 0),
    Call(0x006A, "HvRetrieveDebugData", False, False, DEBUGGING, "any", 16, 0, 8, 0),
    Call(0x006B, "HvResetDebugSession", False, True, DEBUGGING, "any", 8, 0, 0, 0),
    Call(0x006C, "HvMapStatsPage", False, False, STATS, "by type", 32, 0, 0, 0),
    Call(0x006D, "HvUnmapStatsPage", False, False, STATS, "by type", 24, 0, 0, 0),
    Call(0x006E, "HvMapSparseGpaPages", True, False, None, "parent or root itself", 16, 16, 0, 0),
    Call(0x006F, "HvSetSystemProperty", False, False, None, "root", 24, 0, 0, 0),
    Call(0x0070, "HvSetPortProperty", False, False, CREATE_PORT, "parent or self", 32, 0, 8, 0),
    Call(0x0071, "HvGetSystemProperty", False, False, None, "root", 8, 0, 16, 0),
]
"""TLFS appendix B and the sections' call boxes."""

CURRENT_ONLY_CODES = [0x000B, 0x0013, 0x0014, 0x0015, 0x007B, 0x0094, 0x0095, 0x0096]
"""Codes that came after 2.0a."""

CODES_MOVED_BY_CURRENT = [0x0055, 0x0057, 0x0059, 0x0071]
"""Codes of 2.0a that the current generation replaced by others."""


class Register(NamedTuple):
    """A synthetic MSR of TLFS 2.0a. `sample` is a value that may be written without effects."""

    number: int
    name: str
    access: Literal["R", "W", "RW"]
    privilege: int
    sample: int = 0
    implemented: bool = True


REGISTERS_2008R2 = [
    Register(0x40000000, "GUEST_OS_ID", "RW", HYPERCALL, 0x1234),
    Register(0x40000001, "HYPERCALL", "RW", HYPERCALL, 0x5000),
    Register(0x40000002, "VP_INDEX", "R", VP_INDEX),
    Register(0x40000003, "RESET", "RW", RESET, 0),
    Register(0x40000010, "VP_RUNTIME", "R", VP_RUN_TIME),
    Register(0x40000020, "TIME_REF_COUNT", "R", REFERENCE_COUNTER),
    Register(0x40000021, "REFERENCE_TSC", "RW", REFERENCE_TSC, 0x6000),
    Register(0x40000070, "EOI", "W", APIC, 0),
    Register(0x40000071, "ICR", "RW", APIC, 0x40000),
    Register(0x40000072, "TPR", "RW", APIC, 0x20),
    Register(0x40000073, "APIC_ASSIST_PAGE", "RW", APIC, 0x7000),
    Register(0x40000080, "SCONTROL", "RW", SYNIC, 1),
    Register(0x40000081, "SVERSION", "R", SYNIC),
    Register(0x40000082, "SIEFP", "RW", SYNIC, 0x8000),
    Register(0x40000083, "SIMP", "RW", SYNIC, 0x9000),
    Register(0x40000084, "EOM", "RW", SYNIC, 0),
    *(Register(0x40000090 + n, f"SINT{n}", "RW", SYNIC, 0x10040 + n) for n in range(16)),
    *(Register(0x400000B0 + n, f"STIMER{n // 2}_{'COUNT' if n % 2 else 'CONFIG'}", "RW", TIMERS, 0) for n in range(8)),
    *(Register(0x400000C0 + n, f"TRIGGER_C{n}", "R", CPU_MANAGEMENT, 0) for n in (1, 2, 3)),
    *(Register(0x400000D0 + n, f"CONFIG_C{n}", "RW", CPU_MANAGEMENT, 0) for n in (1, 2, 3)),
    *(Register(0x400000E0 + n, f"STATS{n}", "RW", STATS_MSR, 0) for n in range(4)),
    Register(0x400000F0, "GUEST_IDLE", "R", GUEST_IDLE),
]
"""TLFS appendix H and the sections that define the registers."""

STATUS_CODES = {
    0x0000: "SUCCESS",
    0x0002: "INVALID_HYPERCALL_CODE",
    0x0003: "INVALID_HYPERCALL_INPUT",
    0x0004: "INVALID_ALIGNMENT",
    0x0005: "INVALID_PARAMETER",
    0x0006: "ACCESS_DENIED",
    0x0007: "INVALID_PARTITION_STATE",
    0x0008: "OPERATION_DENIED",
    0x0009: "UNKNOWN_PROPERTY",
    0x000A: "PROPERTY_VALUE_OUT_OF_RANGE",
    0x000B: "INSUFFICIENT_MEMORY",
    0x000C: "PARTITION_TOO_DEEP",
    0x000D: "INVALID_PARTITION_ID",
    0x000E: "INVALID_VP_INDEX",
    0x0011: "INVALID_PORT_ID",
    0x0012: "INVALID_CONNECTION_ID",
    0x0013: "INSUFFICIENT_BUFFERS",
    0x0014: "NOT_ACKNOWLEDGED",
    0x0016: "ACKNOWLEDGED",
    0x0017: "INVALID_SAVE_RESTORE_STATE",
    0x0018: "INVALID_SYNIC_STATE",
    0x0019: "OBJECT_IN_USE",
    0x001A: "INVALID_PROXIMITY_DOMAIN_INFO",
    0x001B: "NO_DATA",
    0x001C: "INACTIVE",
    0x001D: "NO_RESOURCES",
    0x001E: "FEATURE_UNAVAILABLE",
    0x001F: "PARTIAL_PACKET",
}
"""TLFS appendix C, without the processor feature codes (0x20 and up) that only a parent sees."""

MESSAGE_TYPES = {
    0x00000000: "None",
    0x80000000: "UnmappedGpa",
    0x80000001: "GpaIntercept",
    0x80000010: "TimerExpired",
    0x80000020: "InvalidVpRegisterValue",
    0x80000021: "UnrecoverableException",
    0x80000022: "UnsupportedFeature",
    0x80000030: "ApicEoi",
    0x80000031: "FerrAsserted",
    0x80000040: "EventLogBuffersComplete",
    0x80010000: "X64IoPortIntercept",
    0x80010001: "X64MsrIntercept",
    0x80010002: "X64CpuidIntercept",
    0x80010003: "X64ExceptionIntercept",
}
"""TLFS 14.8.2."""

LATER_MESSAGE_TYPES = {
    0x80010004: "X64ApicEoi",
    0x80010005: "X64FerrAsserted",
    0x80010007: "X64Halt",
    0x80010008: "X64InterruptionDeliverable",
    0x80010009: "X64Sipi",
}
"""Types that came after 2.0a; the first two replace ApicEoi and FerrAsserted."""

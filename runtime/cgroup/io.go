package cgroup

import (
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// ioWants is one limit for all devices: it holds on each of them, or not at all.
func ioWants(b *specs.LinuxBlockIO) []want {
	if b == nil {
		return nil
	}
	var list []want
	if throttles := throttlesOf(b); len(throttles) > 0 {
		list = append(list, want{LimitIO, IO, "linux.resources.blockIO", func(version int) []setting {
			if version == 1 {
				return ioSettingsV1(throttles)
			}
			return ioSettingsV2(throttles)
		}})
	}
	if b.Weight != nil || b.LeafWeight != nil || len(b.WeightDevice) > 0 {
		list = append(list, want{limit: "io_weight", controller: IO, field: "linux.resources.blockIO.weight"})
	}
	return list
}

// throttle is one bound on one device.
type throttle struct {
	device, file, key, rate string
}

func throttlesOf(b *specs.LinuxBlockIO) []throttle {
	var list []throttle
	add := func(devices []specs.LinuxThrottleDevice, v1File, v2Key string) {
		for _, d := range devices {
			device := strconv.FormatInt(d.Major, 10) + ":" + strconv.FormatInt(d.Minor, 10)
			list = append(list, throttle{device, v1File, v2Key, strconv.FormatUint(d.Rate, 10)})
		}
	}
	add(b.ThrottleReadBpsDevice, "blkio.throttle.read_bps_device", "rbps")
	add(b.ThrottleWriteBpsDevice, "blkio.throttle.write_bps_device", "wbps")
	add(b.ThrottleReadIOPSDevice, "blkio.throttle.read_iops_device", "riops")
	add(b.ThrottleWriteIOPSDevice, "blkio.throttle.write_iops_device", "wiops")
	return list
}

func ioSettingsV1(throttles []throttle) []setting {
	list := make([]setting, 0, len(throttles))
	for _, t := range throttles {
		list = append(list, setting{LimitIO, IO, t.file, t.device + " " + t.rate, hasDevice})
	}
	return list
}

// ioSettingsV2 sets all bounds of a device with one write.
func ioSettingsV2(throttles []throttle) []setting {
	var list []setting
	at := map[string]int{}
	for _, t := range throttles {
		i, ok := at[t.device]
		if !ok {
			i, at[t.device] = len(list), len(list)
			list = append(list, setting{LimitIO, IO, "io.max", t.device, hasDevice})
		}
		list[i].value += " " + t.key + "=" + t.rate
	}
	return list
}

// hasDevice looks for "8:0 rbps=1048576 wiops=10" in io.max, where one line has
// every key of the device, and for "8:0 1048576" in the blkio files.
func hasDevice(content, value string) bool {
	wanted := strings.Fields(value)
	for line := range strings.Lines(content) {
		fields := strings.Fields(line)
		if len(fields) < 2 || len(wanted) < 2 || fields[0] != wanted[0] {
			continue
		}
		for _, part := range wanted[1:] {
			if !slices.Contains(fields[1:], part) {
				return false
			}
		}
		return true
	}
	return false
}

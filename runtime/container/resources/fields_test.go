package resources

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/capsule-run/capsule/hack/specfields"
)

// TestEveryResource: each field of linux.resources is written to a file, or refused by
// name, on either version of control groups.
func TestEveryResource(t *testing.T) {
	const device = `{"major":8,"minor":0,`
	samples := map[string]string{}
	for path, sample := range map[string]struct {
		json   string
		v1, v2 string // the file, or "refused"
	}{
		"memory.limit":                      {`{"memory":{"limit":1048576}}`, "memory.limit_in_bytes", "memory.max"},
		"memory.reservation":                {`{"memory":{"reservation":1048576}}`, "memory.soft_limit_in_bytes", "memory.low"},
		"memory.swap":                       {`{"memory":{"swap":1048576}}`, "memory.memsw.limit_in_bytes", "memory.swap.max"},
		"memory.kernel":                     {`{"memory":{"kernel":1048576}}`, "memory.kmem.limit_in_bytes", "refused"},
		"memory.kernelTCP":                  {`{"memory":{"kernelTCP":1048576}}`, "memory.kmem.tcp.limit_in_bytes", "refused"},
		"memory.swappiness":                 {`{"memory":{"swappiness":0}}`, "memory.swappiness", "refused"},
		"memory.disableOOMKiller":           {`{"memory":{"disableOOMKiller":true}}`, "memory.oom_control", "refused"},
		"memory.useHierarchy":               {`{"memory":{"useHierarchy":false}}`, "memory.use_hierarchy", "refused"},
		"memory.checkBeforeUpdate":          {`{"memory":{"checkBeforeUpdate":true}}`, "refused", "refused"},
		"cpu.shares":                        {`{"cpu":{"shares":512}}`, "cpu.shares", "cpu.weight"},
		"cpu.quota":                         {`{"cpu":{"quota":50000}}`, "cpu.cfs_quota_us", "cpu.max"},
		"cpu.period":                        {`{"cpu":{"period":50000}}`, "cpu.cfs_period_us", "cpu.max"},
		"cpu.burst":                         {`{"cpu":{"burst":1000}}`, "cpu.cfs_burst_us", "cpu.max.burst"},
		"cpu.realtimeRuntime":               {`{"cpu":{"realtimeRuntime":1000}}`, "cpu.rt_runtime_us", "refused"},
		"cpu.realtimePeriod":                {`{"cpu":{"realtimePeriod":1000}}`, "cpu.rt_period_us", "refused"},
		"cpu.cpus":                          {`{"cpu":{"cpus":"0"}}`, "cpuset.cpus", "cpuset.cpus"},
		"cpu.mems":                          {`{"cpu":{"mems":"0"}}`, "cpuset.mems", "cpuset.mems"},
		"cpu.idle":                          {`{"cpu":{"idle":1}}`, "cpu.idle", "cpu.idle"},
		"pids.limit":                        {`{"pids":{"limit":10}}`, "pids.max", "pids.max"},
		"blockIO.weight":                    {`{"blockIO":{"weight":100}}`, "blkio.weight", "io.bfq.weight"},
		"blockIO.leafWeight":                {`{"blockIO":{"leafWeight":100}}`, "blkio.leaf_weight", "refused"},
		"blockIO.weightDevice[].weight":     {`{"blockIO":{"weightDevice":[` + device + `"weight":7}]}}`, "blkio.weight_device", "io.bfq.weight"},
		"blockIO.weightDevice[].leafWeight": {`{"blockIO":{"weightDevice":[` + device + `"leafWeight":7}]}}`, "blkio.leaf_weight_device", "refused"},
		"blockIO.throttleReadBpsDevice[]":   {`{"blockIO":{"throttleReadBpsDevice":[` + device + `"rate":7}]}}`, "blkio.throttle.read_bps_device", "io.max"},
		"blockIO.throttleWriteBpsDevice[]":  {`{"blockIO":{"throttleWriteBpsDevice":[` + device + `"rate":7}]}}`, "blkio.throttle.write_bps_device", "io.max"},
		"blockIO.throttleReadIOPSDevice[]":  {`{"blockIO":{"throttleReadIOPSDevice":[` + device + `"rate":7}]}}`, "blkio.throttle.read_iops_device", "io.max"},
		"blockIO.throttleWriteIOPSDevice[]": {`{"blockIO":{"throttleWriteIOPSDevice":[` + device + `"rate":7}]}}`, "blkio.throttle.write_iops_device", "io.max"},
		"hugepageLimits[]":                  {`{"hugepageLimits":[{"pageSize":"2MB","limit":9}]}`, "hugetlb.2MB.limit_in_bytes", "hugetlb.2MB.max"},
		"network.classID":                   {`{"network":{"classID":7}}`, "net_cls.classid", "refused"},
		"network.priorities[]":              {`{"network":{"priorities":[{"name":"lo","priority":7}]}}`, "net_prio.ifpriomap", "refused"},
		"rdma{}.hcaHandles":                 {`{"rdma":{"mlx5_1":{"hcaHandles":3}}}`, "rdma.max", "rdma.max"},
		"rdma{}.hcaObjects":                 {`{"rdma":{"mlx5_1":{"hcaObjects":3}}}`, "rdma.max", "rdma.max"},
		"unified{}":                         {`{"unified":{"memory.high":"1000"}}`, "refused", "memory.high"},
	} {
		samples[path] = sample.json
		for v2, want := range map[bool]string{false: sample.v1, true: sample.v2} {
			var r specs.LinuxResources
			decoder := json.NewDecoder(strings.NewReader(sample.json))
			decoder.DisallowUnknownFields()
			if err := decoder.Decode(&r); err != nil {
				t.Fatal(path, err)
			}
			all := settings(&r, v2)
			switch {
			case len(all) != 1:
				t.Errorf("%s on v2 %v: %v", path, v2, all)
			case want == "refused" && all[0].file != "", want != "refused" && all[0].file != want:
				t.Errorf("%s on v2 %v: %q, want %q", path, v2, all[0].file, want)
			case want == "refused" && !strings.HasPrefix(all[0].field, "linux.resources."+path[:strings.IndexAny(path+"[", "[{")]):
				t.Errorf("%s is refused as %s", path, all[0].field)
			}
		}
	}
	for _, path := range specfields.Leaves(reflect.TypeFor[specs.LinuxResources]()) {
		array, field, _ := strings.Cut(path, "[].")
		switch {
		case samples[path] != "", samples[array+"[]"] != "":
		case array == "devices": // see TestDeviceFilter and TestDeviceLines
		case array == "blockIO.weightDevice" && (field == "major" || field == "minor"): // with either weight
		default:
			t.Errorf("%s is new, and nothing says what becomes of it", path)
		}
	}
}

// SPDX-License-Identifier: AGPL-3.0-only

// Command trace records this machine's own counters as a device would send them, for the telemetry bars of make bench:
//
//	nice go run ./bench/trace -for 1h -out bench/testdata/trace.jsonl.zst
//
// Each line is a message: its stream, its time in ms since 1970 UTC, and its values. Each stream is read at moments that
// no clock aligns: exponentially distributed pauses around the stream's mean, every now and then a burst, and at times a
// silence of up to ten times as long, as a device that sleeps or loses its link. What a machine of this kind never
// changes (the size of its memory, an unused disk) is left out, since it would flatter the figures. Counters are written as the kernel
// shows them, cumulative; "rate" holds what an agent computes from them, with all the digits that the division gives.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
)

// message is one line of the trace.
type message struct {
	Stream string             `json:"stream"`
	TS     int64              `json:"ts"`
	Values map[string]float64 `json:"values"`
}

type source struct {
	stream string
	mean   time.Duration
	read   func(into map[string]float64) error
}

func main() {
	length := flag.Duration("for", time.Hour, "how long to record")
	out := flag.String("out", "trace.jsonl.zst", "file to write; the lines wait in FILE.part until the end")
	flag.Parse()
	if err := record(*length, *out); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func record(length time.Duration, out string) error {
	part, err := os.Create(out + ".part")
	if err != nil {
		return err
	}
	defer part.Close()
	var r rates
	sources := []source{
		{"cpu", 2 * time.Second, cpu},
		{"memory", 5 * time.Second, memory},
		{"disk", 3 * time.Second, disk},
		{"net", 2 * time.Second, network},
		{"load", 4 * time.Second, load},
		{"irq", 10 * time.Second, interrupts},
		{"vm", 8 * time.Second, vm},
		{"rate", 2 * time.Second, r.read},
	}
	due := make([]time.Time, len(sources))
	start := time.Now()
	lines := json.NewEncoder(part)
	for i, s := range sources {
		due[i] = start.Add(pause(s.mean))
	}
	for {
		next := 0
		for i := range due {
			if due[i].Before(due[next]) {
				next = i
			}
		}
		if due[next].Sub(start) > length {
			break
		}
		time.Sleep(time.Until(due[next]))
		m := message{Stream: sources[next].stream, TS: time.Now().UnixMilli(), Values: map[string]float64{}}
		if err := sources[next].read(m.Values); err != nil {
			return fmt.Errorf("%s: %w", m.Stream, err)
		}
		if len(m.Values) > 0 {
			if err := lines.Encode(m); err != nil {
				return err
			}
		}
		due[next] = time.Now().Add(pause(sources[next].mean))
	}
	if err := pack(part, out); err != nil {
		return err
	}
	return os.Remove(part.Name())
}

// pause draws the time until a stream's next message.
func pause(mean time.Duration) time.Duration {
	d := time.Duration(rand.ExpFloat64() * float64(mean))
	switch n := rand.IntN(200); {
	case n == 0:
		d = time.Duration((2 + 8*rand.Float64()) * float64(mean))
	case n < 6:
		d = 20 * time.Millisecond
	}
	return max(d, 10*time.Millisecond)
}

// pack compresses the lines into the file that is kept.
func pack(lines *os.File, out string) error {
	if _, err := lines.Seek(0, io.SeekStart); err != nil {
		return err
	}
	f, err := os.Create(out)
	if err != nil {
		return err
	}
	defer f.Close()
	z, err := zstd.NewWriter(f, zstd.WithEncoderLevel(zstd.SpeedBestCompression))
	if err != nil {
		return err
	}
	if _, err := io.Copy(z, lines); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	return f.Sync()
}

// each calls fn with the fields of each line of a file.
func each(path string, fn func(fields []string)) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if fields := strings.Fields(lines.Text()); len(fields) > 0 {
			fn(fields)
		}
	}
	return lines.Err()
}

// number reads a number that the kernel wrote; it is 0 where there is none.
func number(s string) float64 {
	v, _ := strconv.ParseFloat(s, 64)
	return v
}

func cpu(into map[string]float64) error {
	return each("/proc/stat", func(f []string) {
		switch {
		case strings.HasPrefix(f[0], "cpu"):
			for i, name := range []string{"user", "nice", "system", "idle", "iowait", "softirq", "steal"} {
				into[f[0]+"."+name] = number(f[1+i+i/5]) // hardirq is not counted apart here
			}
		case f[0] == "ctxt", f[0] == "intr", f[0] == "processes", f[0] == "procs_running", f[0] == "procs_blocked":
			into[f[0]] = number(f[1])
		}
	})
}

func memory(into map[string]float64) error {
	return each("/proc/meminfo", func(f []string) {
		switch name := strings.TrimSuffix(f[0], ":"); name {
		case "MemFree", "MemAvailable", "Buffers", "Cached", "Active", "Inactive", "AnonPages", "Mapped", "Slab", "Dirty",
			"Writeback", "PageTables", "Committed_AS":
			into[name] = number(f[1])
		}
	})
}

func disk(into map[string]float64) error {
	return each("/proc/diskstats", func(f []string) {
		if strings.HasPrefix(f[2], "loop") || f[3] == "0" && f[7] == "0" || strings.HasPrefix(f[2], "zram") {
			return
		}
		for i, name := range []string{"reads", "reads_merged", "sectors_read", "ms_reading", "writes", "writes_merged", "sectors_written", "ms_writing",
			"in_flight", "ms_io", "ms_weighted"} {
			into[f[2]+"."+name] = number(f[3+i])
		}
	})
}

func network(into map[string]float64) error {
	return each("/proc/net/dev", func(f []string) {
		name, ok := strings.CutSuffix(f[0], ":")
		if !ok || len(f) < 12 || strings.HasPrefix(name, "ifb") {
			return
		}
		into[name+".rx_bytes"], into[name+".rx_packets"] = number(f[1]), number(f[2])
		into[name+".tx_bytes"], into[name+".tx_packets"] = number(f[9]), number(f[10])
	})
}

func load(into map[string]float64) error {
	for _, what := range []string{"cpu", "io", "memory"} {
		err := each("/proc/pressure/"+what, func(f []string) {
			for _, kv := range f[1:] {
				name, v, _ := strings.Cut(kv, "=")
				if f[0] == "some" && name != "avg300" {
					into[what+"."+name] = number(v)
				}
			}
		})
		if err != nil && !os.IsNotExist(err) {
			return err
		}
	}
	return each("/proc/loadavg", func(f []string) {
		into["load1"], into["load5"], into["load15"] = number(f[0]), number(f[1]), number(f[2])
		_, tasks, _ := strings.Cut(f[3], "/")
		into["tasks"] = number(tasks)
	})
}

var notName = regexp.MustCompile(`[^A-Za-z0-9._-]+`)

func interrupts(into map[string]float64) error {
	return each("/proc/interrupts", func(f []string) {
		name, ok := strings.CutSuffix(f[0], ":")
		sum, i := 0.0, 1
		for ; ok && i < len(f); i++ {
			n, err := strconv.ParseFloat(f[i], 64)
			if err != nil {
				break
			}
			sum += n
		}
		if sum == 0 {
			return
		}
		if _, err := strconv.Atoi(name); err == nil {
			name = f[len(f)-1]
		}
		into[notName.ReplaceAllString(name, "-")] = sum
	})
}

func vm(into map[string]float64) error {
	return each("/proc/vmstat", func(f []string) {
		switch f[0] {
		case "nr_free_pages", "nr_dirty", "pgpgin", "pgpgout", "pgfault", "pgmajfault", "pgfree", "pgalloc_normal", "pgactivate", "pgrefill",
			"thp_fault_alloc", "numa_hit":
			into[f[0]] = number(f[1])
		}
	})
}

// rates holds what the last reading saw, to divide by the time between.
type rates struct {
	at   time.Time
	last map[string]float64
}

func (r *rates) read(into map[string]float64) error {
	now, seen := time.Now(), map[string]float64{}
	for _, read := range []func(map[string]float64) error{cpu, disk, network} {
		if err := read(seen); err != nil {
			return err
		}
	}
	seconds := now.Sub(r.at).Seconds()
	if r.last != nil {
		per := func(name string) float64 { return (seen[name] - r.last[name]) / seconds }
		busy := 100 * (1 - per("cpu.idle")/max(per("cpu.idle")+per("cpu.user")+per("cpu.nice")+per("cpu.system")+per("cpu.iowait"), 1))
		into["busy_percent"] = math.Round(busy*100) / 100 // as tools print it
		into["ctxt_per_s"] = math.Round(per("ctxt"))
		into["net_bytes_per_s"] = per("lo.rx_bytes") + per("eth0.rx_bytes") + per("eth0.tx_bytes") // as programs divide
		for name := range seen {
			if dev, ok := strings.CutSuffix(name, ".sectors_written"); ok {
				into[dev+"_write_kb_per_s"] = math.Round(per(name)*5) / 10
			}
		}
	}
	r.at, r.last = now, seen
	return nil
}

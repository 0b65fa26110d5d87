// SPDX-License-Identifier: AGPL-3.0-only

package telemetry

// unit is a code as a multiple of another.
type unit struct {
	base  string
	scale float64
}

// units are the codes that have an equal of another scale or spelling: the secondary units of SenML (RFC 8798, section 3)
// against its primary ones (RFC 8428, section 12.1), and UCUM where it spells the same differently. A code that is not
// listed is its own base, such as Cel, %RH or lx.
var units = map[string]unit{
	"ms": {"s", 1e-3}, "min": {"s", 60}, "h": {"s", 3600}, "d": {"s", 86_400},
	"MHz": {"Hz", 1e6}, "kHz": {"Hz", 1e3}, "kW": {"W", 1e3}, "mW": {"W", 1e-3}, "kVA": {"VA", 1e3}, "kvar": {"var", 1e3},
	"Ah": {"C", 3600}, "A.h": {"C", 3600}, "Wh": {"J", 3600}, "W.h": {"J", 3600}, "kWh": {"J", 3.6e6}, "kW.h": {"J", 3.6e6},
	"varh": {"vars", 3600}, "kvarh": {"vars", 3.6e6}, "VAh": {"VAs", 3600}, "kVAh": {"VAs", 3.6e6}, "Wh/km": {"J/m", 3.6},
	"KiB": {"B", 1024}, "MB": {"B", 1e6}, "GB": {"B", 1e9}, "By": {"B", 1}, "Mbit/s": {"bit/s", 1e6}, "B/s": {"bit/s", 8}, "MB/s": {"bit/s", 8e6},
	"mV": {"V", 1e-3}, "kV": {"V", 1e3}, "mA": {"A", 1e-3}, "g": {"kg", 1e-3}, "t": {"kg", 1e3},
	"ug/m3": {"kg/m3", 1e-9}, "g/m3": {"kg/m3", 1e-3}, "L": {"m3", 1e-3}, "l": {"m3", 1e-3}, "L/s": {"m3/s", 1e-3}, "l/s": {"m3/s", 1e-3}, "l/min": {"m3/s", 1e-3 / 60},
	"mm/h": {"m/s", 1e-3 / 3600}, "m/h": {"m/s", 1.0 / 3600}, "km/h": {"m/s", 1 / 3.6},
	"mm": {"m", 1e-3}, "cm": {"m", 1e-2}, "km": {"m", 1e3}, "hPa": {"Pa", 100}, "kPa": {"Pa", 1e3}, "bar": {"Pa", 1e5}, "mbar": {"Pa", 100},
	"/": {"1", 1}, "%": {"1", 1e-2}, "/100": {"1", 1e-2}, "/1000": {"1", 1e-3}, "ppm": {"1", 1e-6}, "ppth": {"1", 1e-3},
}

func unitOf(code string) unit {
	if u, known := units[code]; known {
		return u
	}
	return unit{code, 1}
}

// convert turns a value of one unit into another; false: they measure different things. "" is a unit that nobody named.
func convert(v float64, from, to string) (float64, bool) {
	if from == to || from == "" || to == "" {
		return v, true
	}
	a, b := unitOf(from), unitOf(to)
	if a.base != b.base {
		return v, false
	}
	return v * (a.scale / b.scale), true
}

"""judge.py JSON P50_MS MAX_MS: prints each fault of a `basalt demo` in a region server or elsewhere.
Fails if a write outage exceeds the limits, or if an acknowledged write is lost."""
import json
import sys

report, bars = json.load(open(sys.argv[1])), [int(bar) for bar in sys.argv[2:4]]
faults = [
    fault for fault in report["faults"]
    if fault["kind"] == "elsewhere" or fault["kind"].endswith("regionserver")
]
for fault in faults:
    print(fault["kind"], fault["victim"], "at", fault["at_ms"], "ms: writes", fault["write_outage_ms"],
          "reads", fault["read_outage_ms"], "phases", fault["phases_ms"])
outage, lost = report["summary"]["write_outage_ms"], report["summary"]["lost"]
print(f"{len(faults)} faults: write outage p50 {outage['p50']} ms (bar {bars[0]}), "
      f"max {outage['max']} ms (bar {bars[1]}), failed elsewhere {report['summary']['bystander_failures']}, "
      f"lost {lost} of {report['summary']['acked']}")
sys.exit(lost > 0 or outage["p50"] > bars[0] or outage["max"] > bars[1])

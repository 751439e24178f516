/** A study on one page, from what was put into the file. */
import type { JSX } from "preact";
import { embeddedValue, useAnswer } from "../api";
import { moment } from "../format";
import type { ArchitectureDetail, StudyDetail } from "../types";
import { Answer, Card, StudyHead } from "../ui";
import { Detail } from "./architecture";
import { AuditCards } from "./audit";
import { ImportanceCard, LineageCards, ParallelCard } from "./choices";
import { ParetoPlot } from "./pareto";
import { BestSoFar, Facts, Settings } from "./study";

export function Report(): JSX.Element {
  const about = embeddedValue("report") as { study: string; at: number; best: number | null; parts: string[]; pareto: string };
  const detail = useAnswer<StudyDetail>("/api/study", { study: about.study });
  const has = (part: string) => about.parts.includes(part);
  return (
    <>
      <StudyHead study={about.study} page="">
        <p class="sub">A report of {moment(about.at)}; it shows the study as it was then.</p>
      </StudyHead>
      <Answer of={detail}>
        {(data) => (
          <>
            <Facts study={data} />
            {has("curve") && <BestSoFar study={data} x="order" version={0} />}
            {has("pareto") && <ParetoPlot detail={data} query={new URLSearchParams(about.pareto)} />}
            {about.best !== null && <Best study={about.study} number={about.best} />}
            {has("importance") && <ImportanceCard study={about.study} method="ped-anova" />}
            {has("parallel") && <ParallelCard study={about.study} />}
            {has("lineage") && <LineageCards study={about.study} />}
            {has("audit") && <AuditCards study={about.study} />}
            <Settings config={data.config} />
          </>
        )}
      </Answer>
    </>
  );
}

function Best({ study, number }: { study: string; number: number }): JSX.Element {
  const found = useAnswer<ArchitectureDetail>("/api/architecture", { study, number });
  return (
    <>
      <h2 class="part">The best architecture, trial {number}</h2>
      <Answer of={found}>{(data) => <Detail study={study} data={data} />}</Answer>
    </>
  );
}

export function Missing(): JSX.Element {
  return (
    <Card title="There is no such page">
      <p>
        Go to <a href="/">all studies</a>.
      </p>
    </Card>
  );
}

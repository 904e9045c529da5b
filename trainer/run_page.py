"""The look and behaviour of the page of training runs: one HTML page without any other file."""

from trainer.report_page import STYLE

RUN_PAGE = (
    r"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>tubelets: training</title>
<link rel="icon" href="data:,">
<style>
"""
    + STYLE
    + r"""
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(330px,100%),1fr));gap:.8rem}.charts figure{margin:0;
background:var(--card);border:1px solid var(--line);border-radius:8px;padding:.5rem}figcaption{font-weight:600}
.charts svg{width:100%;display:block}.at{display:flex;gap:.6rem;align-items:center;margin:.6rem 0}.at input{flex:1;min-width:0;padding:0}
button,h3{max-width:100%;overflow-wrap:anywhere}details{margin:.5rem 0}summary{cursor:pointer}.differs td:first-child{font-weight:600}th.left,td.left{text-align:left;overflow-wrap:anywhere}
</style></head><body>
<h1>Training</h1>
<div class="filters" id="filters" role="group" aria-label="Runs"></div>
<h2>Curves</h2><p id="lines"></p>
<div class="filters"><button id="log" aria-pressed="false">log scale of the loss</button></div>
<div class="charts" id="charts"></div>
<label class="at">At step <output id="step"></output><input type="range" id="at" aria-label="step"></label>
<div class="wide"><table id="values"></table></div>
<h2>At the end</h2><p id="ends"></p><div class="wide"><table id="last"></table></div>
<h2>Settings</h2><p id="same"></p><div class="wide"><table id="differing"></table></div>
<details><summary>all settings</summary><div class="wide"><table id="settings"></table></div></details>
<h2>Runs</h2><div id="runs"></div>
<script type="application/json" id="data">@DATA@</script>
<script>
"use strict";
const D=JSON.parse(document.getElementById("data").textContent),$=id=>document.getElementById(id);
const make=(name,text,...kids)=>{const e=document.createElement(name);if(text!=null)e.textContent=text;e.append(...kids);return e};
const row=(tag,cells)=>make("tr",null,...cells.map(c=>c instanceof Node?make(tag,null,c):make(tag,c)));
const left=tr=>{for(const cell of tr.children)cell.classList.add("left");return tr};
const short=v=>v==null?"–":v===0?"0":Math.abs(v)<.001||Math.abs(v)>=1e5?v.toExponential(2):String(+v.toPrecision(4));
const many=D.runs.length>1,banded=D.groups.some(g=>g.runs.length>1);
const groupOf=D.runs.map((_,i)=>D.groups.find(g=>g.runs.includes(i)));
const shown=new Set(D.runs.keys());
let log=false;
const all=D.runs.flatMap(r=>Object.values(r.curves).flat().map(p=>p[0]));
const first=Math.min(0,...all),end=Math.max(...all);
D.runs.forEach((run,i)=>{const b=make("button",run.name+(many?" (seed "+run.seed+")":""));b.style.borderLeft="6px solid "+groupOf[i].colour;
b.setAttribute("aria-pressed","true");b.onclick=()=>{shown.has(i)?shown.delete(i):shown.add(i);
b.setAttribute("aria-pressed",shown.has(i));draw()};$("filters").append(b)});
$("lines").textContent=banded?"Thin: a run. Thick: the mean of the runs that differ in their seed alone; the band goes from the least to the most of them.":"";
$("log").onclick=()=>{log=!log;$("log").setAttribute("aria-pressed",log);draw()};
const ns="http://www.w3.org/2000/svg";
function chart(name,title){const svg=document.createElementNS(ns,"svg");svg.setAttribute("viewBox","0 0 400 220");
svg.setAttribute("role","img");svg.setAttribute("aria-label",title+" over steps");
const put=(n,a,t)=>{const e=document.createElementNS(ns,n);for(const k in a)e.setAttribute(k,a[k]);if(t!=null)e.textContent=t;svg.append(e)};
const lines=[...shown].filter(i=>D.runs[i].curves[name]).map(i=>[i,D.runs[i].curves[name]]);
const values=lines.flatMap(([,c])=>c.map(p=>p[1])),scaled=log&&["loss","loc","conf"].includes(name)&&values.every(v=>v>0);
const f=scaled?Math.log10:v=>v;let low=scaled?f(Math.min(...values)):Math.min(0,...values),high=f(Math.max(...values,scaled?-Infinity:0));
if(!lines.length)low=0;if(!(high>low))high=low+1;
const raw=(high-low)/4,power=10**Math.floor(Math.log10(raw)),tick=scaled?raw:[1,2,2.5,5,10].find(m=>m*power>=raw*.999)*power;
if(!scaled){low=tick*Math.floor(low/tick);high=tick*Math.ceil(high/tick-1e-9)}
const X=s=>52+340*(s-first)/(end-first||1),Y=v=>196-186*(f(v)-low)/(high-low);
for(let k=0;low+k*tick<high+tick/9;k++){const v=low+k*tick,y=196-186*(v-low)/(high-low);put("line",{class:"axis",x1:52,x2:392,y1:y,y2:y});
put("text",{x:46,y:y+4,"text-anchor":"end"},scaled?(10**v).toPrecision(2):short(+v.toPrecision(6)))}
put("text",{x:52,y:214},first);put("text",{x:392,y:214,"text-anchor":"end"},end);
for(const g of D.groups){const band=g.bands[name];if(!band||!g.runs.every(i=>shown.has(i)))continue;
put("polygon",{class:"band",fill:g.colour,"fill-opacity":.22,points:[...band.map(p=>X(p[0])+","+Y(p[2])),...band.toReversed().map(p=>X(p[0])+","+Y(p[3]))].join(" ")});
put("polyline",{class:"mean",fill:"none",stroke:g.colour,"stroke-width":2.6,points:band.map(p=>X(p[0])+","+Y(p[1])).join(" ")})}
for(const [i,curve] of lines){const colour=groupOf[i].colour,alone=groupOf[i].runs.length===1;
if(curve.length<12)for(const p of curve)put("circle",{cx:X(p[0]),cy:Y(p[1]),r:2.5,fill:colour});
put("polyline",{class:"run",fill:"none",stroke:colour,"stroke-width":alone?2:1,points:curve.map(p=>X(p[0])+","+Y(p[1])).join(" ")})}
const at=+$("at").value;put("line",{stroke:"var(--mark)","stroke-dasharray":"3 3",x1:X(at),x2:X(at),y1:10,y2:196});
return make("figure",null,make("figcaption",title),svg)}
const near=(curve,step)=>curve&&curve.reduce((a,b)=>Math.abs(b[0]-step)<Math.abs(a[0]-step)?b:a);
function draw(){$("charts").replaceChildren(...D.charts.map(([name,title])=>chart(name,title)));const at=+$("at").value;
$("step").textContent=at;$("values").replaceChildren(row("th",["run",...D.charts.map(c=>c[1])]),
...[...shown].sort((a,b)=>a-b).map(i=>row("td",[D.runs[i].name,...D.charts.map(([n])=>{const p=near(D.runs[i].curves[n],at);return short(p&&p[1])})])))}
const slider=$("at");slider.min=first;slider.max=end;slider.step=Math.max(1,Math.round((end-first)/100));slider.value=end;slider.oninput=draw;
$("ends").textContent=banded?"Mean ± standard deviation over the seeds, at the last step that the runs share.":"";
$("last").replaceChildren(row("th",[banded?"runs":"run",...D.charts.map(c=>c[1])]),...D.groups.map(g=>row("td",[g.name,
...D.charts.map(([n])=>{const v=g.last[n];return v?short(v.mean)+(v.deviation==null?"":" ± "+short(+v.deviation.toPrecision(2))):"–"})])));
const head=["setting",...D.runs.flatMap(r=>many?[r.name,"its preset"]:["here","preset"])];
const setting=s=>{const tr=left(row("td",[s.name,...s.values.flatMap((v,i)=>[v,s.presets[i]])]));if(s.differs)tr.className="differs";return tr};
const differing=D.settings.filter(s=>s.differs);
$("same").textContent=differing.length?"Those that differ from the preset"+(many?", or between the runs:":":"):"All are the preset's"+(many?", in every run.":".");
if(differing.length)$("differing").replaceChildren(left(row("th",head)),...differing.map(setting));
$("settings").replaceChildren(left(row("th",head)),...D.settings.map(setting));
for(const run of D.runs){const list=make("dl");for(const [name,value] of run.about)list.append(make("dt",name),make("dd",value));
const section=make("section",null,make("h3",run.name),list,make("p",run.verdict||"No profile: --profile N writes one into this folder."));
if(run.stages.length){const sum=run.stages.reduce((a,s)=>a+s[1],0),table=make("table");
table.append(row("th",["of a step","ms","share"]),...run.stages.map(([n,ms])=>row("td",[n,short(ms),Math.round(100*ms/sum)+" %"])));section.append(table)}
if(run.evaluations.length){const table=make("table"),points=v=>v==null?"–":(100*v).toFixed(1);
table.append(row("th",["evaluation","step","frame-mAP@0.5","video-mAP@0.5","videos","protocol"]),...run.evaluations.map(e=>
row("td",[e.folder,e.step,points(e.frame),points(e.video),e.videos,e.protocol])));const wide=make("div",null,table);wide.className="wide";section.append(wide)}
$("runs").append(section)}
draw();
</script></body></html>
"""
)

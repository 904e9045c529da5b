"""The look and behaviour of the report: one HTML page without any other file."""

STYLE = r""":root{--paper:#fafaf8;--ink:#1e1e1e;--dim:#5d5d5d;--line:#d5d5d0;--card:#fff;--mark:#0571b0}
@media(prefers-color-scheme:dark){:root{--paper:#161618;--ink:#ececec;--dim:#a5a5a5;--line:#3a3a3d;--card:#202023;--mark:#6cb8e8}}
*{box-sizing:border-box}body{margin:0 auto;max-width:1100px;padding:1rem;background:var(--paper);color:var(--ink);
font:15px/1.45 system-ui,sans-serif}h1{font-size:1.4rem;margin:.2rem 0}h2{font-size:1.1rem;margin:2rem 0 .5rem}
p,dd,small{color:var(--dim)}dl{display:grid;grid-template-columns:max-content 1fr;gap:.1rem 1rem;overflow-wrap:anywhere}dd{margin:0}
.big{display:flex;flex-wrap:wrap;gap:.6rem}.big div{background:var(--card);border:1px solid var(--line);border-radius:8px;
padding:.5rem .9rem}.big b{display:block;font-size:1.5rem;font-variant-numeric:tabular-nums}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}td,th{padding:.2rem .55rem;text-align:right;border-bottom:1px
solid var(--line)}td:first-child,th:first-child{text-align:left}.wide{overflow-x:auto}
.bar{display:flex;height:1.1rem;min-width:240px;border-radius:3px;overflow:hidden}.key span{display:inline-block;width:.8em;
height:.8em;border-radius:2px;margin:0 .3em 0 1em}
svg{max-width:100%;height:auto}#curves svg{width:560px}svg text{fill:var(--dim);font-size:11px}svg .axis{stroke:var(--line)}
.filters{display:flex;flex-wrap:wrap;gap:.4rem;margin:.5rem 0}button,select,input{font:inherit;color:inherit;background:var(--card);
border:1px solid var(--line);border-radius:6px;padding:.2rem .6rem}button[aria-pressed=true]{border-color:var(--mark);
color:var(--mark)}:focus-visible{outline:2px solid var(--mark);outline-offset:2px}
.videos{display:grid;grid-template-columns:repeat(auto-fill,minmax(290px,1fr));gap:.8rem}.videos article{background:var(--card);
border:1px solid var(--line);border-radius:8px;padding:.6rem}.strip{width:100%;aspect-ratio:4/3;background-size:cover}
.play{display:flex;gap:.5rem;align-items:center;margin:.4rem 0}.play input{flex:1;min-width:0;padding:0}
.cm td{min-width:2.6rem}#errors td{white-space:nowrap}
"""
"""Shared with the page of runs."""

PAGE = (
    r"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>tubelets: evaluation</title>
<link rel="icon" href="data:,">
<style>
"""
    + STYLE
    + r"""</style></head><body>
<h1>Evaluation</h1><div class="big" id="big"></div>
<dl id="about"></dl>
<h2>Classes</h2><div class="filters" id="filters" role="group" aria-label="Classes"></div>
<div class="wide"><table id="classes"></table></div>
<h2>Precision over recall, frames at 0.5</h2><div id="curves"></div>
<h2>What the errors are</h2><p class="key" id="key"></p><div class="wide"><table id="errors"></table></div>
<h2>Confusion</h2><p>Rows: the annotated class of a box. Columns: the class that its overlapping tubelets score highest, in % of the row.</p>
<div class="wide"><table class="cm" id="confusion"></table></div>
<h2>Videos</h2><p>Score: how well the annotated tubes are covered in space and time by tubes of their class. White boxes are annotated.</p>
<div class="filters"><label>Order <select id="order"><option value="1">worst first</option><option value="-1">best first</option>
</select></label></div><div class="videos" id="videos"></div>
<script type="application/json" id="data">@DATA@</script>
<script>
"use strict";
const D=JSON.parse(document.getElementById("data").textContent),$=id=>document.getElementById(id);
const make=(name,text,...kids)=>{const e=document.createElement(name);if(text!=null)e.textContent=text;e.append(...kids);return e};
const points=v=>v==null?"–":(100*v).toFixed(1);
const shown=new Set(D.classes.map((_,i)=>i));
for(const [name,value] of D.headline)$("big").append(make("div",null,make("b",points(value)),make("small",name)));
for(const [name,value] of D.about)$("about").append(make("dt",name),make("dd",value));
D.classes.forEach((name,i)=>{const b=make("button",name);b.style.borderLeft="6px solid "+D.colours[i];
b.setAttribute("aria-pressed","true");b.onclick=()=>{shown.has(i)?shown.delete(i):shown.add(i);
b.setAttribute("aria-pressed",shown.has(i));draw()};$("filters").append(b)});
const all=make("button","all / none");all.onclick=()=>{const full=shown.size===D.classes.length;shown.clear();
if(!full)D.classes.forEach((_,i)=>shown.add(i));
[...$("filters").children].slice(0,-1).forEach(b=>b.setAttribute("aria-pressed",!full));draw()};$("filters").append(all);
const row=(tag,cells)=>make("tr",null,...cells.map(c=>c instanceof Node?make(tag,null,c):make(tag,c)));
function curves(){const ns="http://www.w3.org/2000/svg",svg=document.createElementNS(ns,"svg");
svg.setAttribute("viewBox","0 0 520 330");svg.setAttribute("role","img");svg.setAttribute("aria-label","precision over recall");
const put=(n,a,t)=>{const e=document.createElementNS(ns,n);for(const k in a)e.setAttribute(k,a[k]);if(t)e.textContent=t;svg.append(e)};
const X=r=>40+r*460,Y=p=>300-p*280;for(let i=0;i<=4;i++){const v=i/4;put("line",{class:"axis",x1:X(0),x2:X(1),y1:Y(v),y2:Y(v)});
put("line",{class:"axis",x1:X(v),x2:X(v),y1:Y(0),y2:Y(1)});put("text",{x:8,y:Y(v)+4},100*v);put("text",{x:X(v)-8,y:318},100*v)}
for(const i of shown)put("polyline",{fill:"none",stroke:D.colours[i],"stroke-width":2,
points:D.curves[i].map(([r,p])=>X(r)+","+Y(p)).join(" ")});$("curves").replaceChildren(svg)}
function draw(){const list=[...shown].sort((a,b)=>a-b);
$("classes").replaceChildren(row("th",["class",...D.columns]),...list.map(i=>row("td",[D.classes[i],...D.table[i].map(points)])));
curves();
$("errors").replaceChildren(...list.filter(i=>D.errors[i]).map(i=>{const bar=make("div");bar.className="bar";
D.errors[i].forEach((v,k)=>{const s=make("span");s.style.cssText="width:"+100*v+"%;background:"+D.kinds[k][1];
s.title=D.kinds[k][0]+" "+points(v);bar.append(s)});return row("td",[D.classes[i],bar,D.errors[i].map(points).join(" · ")])}));
$("confusion").replaceChildren(row("th",["",...D.classes,"none"]),...list.map(i=>{const sum=D.confusion[i].reduce((a,b)=>a+b,0);
const tr=row("td",[D.classes[i],...D.confusion[i].map(v=>sum?Math.round(100*v/sum):"–")]);
D.confusion[i].forEach((v,k)=>{if(sum)tr.children[k+1].style.background="rgb(5 113 176 / "+(.75*v/sum)+")"});return tr}));videos()}
let timers=[];
function videos(){timers.forEach(clearInterval);timers=[];const sign=+$("order").value;
$("videos").replaceChildren(...D.videos.filter(v=>v.labels.some(l=>shown.has(l))||!v.labels.length)
.sort((a,b)=>sign*((a.score??1)-(b.score??1))).map(card))}
function card(v){const art=make("article",null,make("b",v.id),make("div",null,make("small","score "+points(v.score)+", "+v.frames+" frames")));
if(v.strip){const s=make("div");s.className="strip";s.style.backgroundImage="url("+v.strip+")";
s.style.aspectRatio=v.aspect;s.style.backgroundSize=100*v.shots+"% 100%";s.setAttribute("role","img");s.setAttribute("aria-label",v.id);
const r=make("input");r.type="range";r.min=0;r.max=v.shots-1;r.value=0;r.setAttribute("aria-label","frame of "+v.id);
const go=()=>{s.style.backgroundPosition=(v.shots>1?100*r.value/(v.shots-1):0)+"% 0"};r.oninput=go;go();
const b=make("button","play");let t=null;b.onclick=()=>{if(t){clearInterval(t);t=null;b.textContent="play"}else{b.textContent="pause";
t=setInterval(()=>{r.value=(+r.value+1)%v.shots;go()},160);timers.push(t)}};const p=make("div",null,b,r);p.className="play";art.append(s,p)}
const ns="http://www.w3.org/2000/svg",svg=document.createElementNS(ns,"svg"),h=16*v.bars.length+4;
svg.setAttribute("viewBox","0 0 270 "+h);v.bars.forEach(([l,first,n,score],i)=>{const rect=document.createElementNS(ns,"rect"),
x=100+170*first/v.frames;for(const [k,a] of Object.entries({x,y:16*i+3,width:170*n/v.frames,height:10,
fill:score==null?"none":D.colours[l],stroke:D.colours[l],"stroke-width":2}))rect.setAttribute(k,a);
const text=document.createElementNS(ns,"text");text.setAttribute("x",0);text.setAttribute("y",16*i+12);
text.textContent=(score==null?"true ":score.toFixed(2)+" ")+D.classes[l];svg.append(rect,text)});art.append(svg);return art}
$("order").onchange=videos;
for(const [name,colour] of D.kinds){const s=make("span");s.style.background=colour;$("key").append(s,name)}
draw();
</script></body></html>
"""
)
